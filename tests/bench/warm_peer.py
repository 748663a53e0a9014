"""A program that is already running when a picture is wanted: warm_peer.py KIND.

It reads lines of JSON, {"source": ..., "target": ...}. For each it writes one JPEG to `target`, and
answers with {"done_s": ..., "cpu_s": ...}, or with {"error": ...}. CPU is user + system of this
process and of processes that it started.

Kinds: `pyav` and `opencv` open the URL `source` as their documentation shows it. `asyncio` starts
an ffmpeg for each picture, as most programs do. `bare` is no peer but a limit: decoding, colours
and JPEG of the access unit in the file `source`, with nothing else around it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path


def pyav() -> Callable[[str, str], None]:
    import av

    def shot(url: str, target: str) -> None:
        with av.open(url, options={"rtsp_transport": "tcp"}) as container:
            next(container.decode(video=0)).to_image().save(target, quality=85)

    return shot


def opencv() -> Callable[[str, str], None]:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp"
    import cv2

    def shot(url: str, target: str) -> None:
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
        found, picture = capture.read()
        capture.release()
        if not found:
            raise ValueError("no picture")
        if not cv2.imwrite(target, picture, [cv2.IMWRITE_JPEG_QUALITY, 85]):
            raise ValueError("it cannot be written")

    return shot


def through_asyncio() -> Callable[[str, str], None]:
    runner = asyncio.Runner()

    async def run(url: str, target: str) -> None:
        read = ("-nostdin", "-loglevel", "error", "-rtsp_transport", "tcp", "-i", url)
        write = ("-frames:v", "1", "-q:v", "3", "-f", "image2pipe", "-c:v", "mjpeg", "-")
        process = await asyncio.create_subprocess_exec(
            *("ffmpeg", *read, *write), stdout=asyncio.subprocess.PIPE
        )
        jpeg, _ = await process.communicate()
        if not jpeg:
            raise ValueError("no picture")
        new = Path(f"{target}.new")
        new.write_bytes(jpeg)
        new.replace(target)

    return lambda url, target: runner.run(run(url, target))


def bare() -> Callable[[str, str], None]:
    import av
    import numpy as np
    import simplejpeg
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    def shot(source: str, target: str) -> None:
        path = Path(source)
        context = av.CodecContext.create(path.suffix[1:], "r")
        assert isinstance(context, VideoCodecContext)
        context.thread_count = 1
        frame, *_ = [*context.decode(av.Packet(path.read_bytes())), *context.decode(None)]
        full = frame.reformat(
            format="yuv420p",
            src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.POINT,
            threads=1,
        )
        planes = [
            np.ascontiguousarray(
                np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[
                    :, : plane.width
                ]
            )
            for plane in full.planes
        ]
        Path(target).write_bytes(simplejpeg.encode_jpeg_yuv_planes(*planes, quality=85))

    return shot


KINDS = {"pyav": pyav, "opencv": opencv, "asyncio": through_asyncio, "bare": bare}


def cpu_s() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    shot = KINDS[sys.argv[1]]()
    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        began_s, used_s = time.monotonic(), cpu_s()
        try:
            shot(request["source"], request["target"])
        except Exception as error:  # noqa: BLE001 - it is reported, and the next one is tried
            answer: dict[str, float | str] = {"error": f"{type(error).__name__}: {error}"}
        else:
            answer = {"done_s": time.monotonic() - began_s, "cpu_s": cpu_s() - used_s}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
