"""A stand-in for go2rtc, for the system's Python.

Its documented API, and a real RTSP restream by GStreamer.

go2rtc_stand_in.py API_PORT RTSP_PORT [NAME=URL ...]; a stream is live, with one session of its
camera, while somebody watches it. A URL may be go2rtc's `exec:` form: what its command reads after
-i is restreamed. For the tests alone: POST /stand-in?mode=ok|hang|garbage|empty|mute says what the
API answers, or (mute) that RTSP gives nothing; WATCH_S in the environment: somebody watches the
first stream for so long, then it ends by itself.
"""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
mode = "ok"
streams: dict[str, "Stream"] = {}
server = GstRtspServer.RTSPServer()


class Stream:
    """One stream and its only producer."""

    def __init__(self, name: str, source: str) -> None:
        self.source, self.name, self.live = source, name, False
        self.broken = False  # the camera ended a session, not we
        words = source.split()
        self.url = words[words.index("-i") + 1] if source.startswith("exec:") else source
        self.factory = GstRtspServer.RTSPMediaFactory()
        parts = urlsplit(self.url)
        location = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self.login = {
            "user-id": unquote(parts.username or ""),
            "user-pw": unquote(parts.password or ""),
        }
        self.factory.set_launch(
            f"( rtspsrc name=camera location={location} protocols=tcp latency=0 "
            "teardown-timeout=2000000000 ! rtph264depay name=depay ! h264parse "
            "! rtph264pay name=pay0 pt=96 config-interval=-1 )"
        )
        self.factory.set_shared(True)
        self.factory.connect("media-configure", self.configured)
        server.get_mount_points().add_factory("/" + name, self.factory)

    def configured(self, _: object, media: GstRtspServer.RTSPMedia) -> None:
        self.live = True
        for key, value in self.login.items():
            media.get_element().get_by_name("camera").set_property(key, value)
        media.get_element().get_by_name("depay").get_static_pad("src").add_probe(
            Gst.PadProbeType.EVENT_DOWNSTREAM, self.passing
        )
        media.connect("unprepared", self.unprepared)

    def passing(self, _: object, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        self.broken |= info.get_event().type == Gst.EventType.EOS
        return Gst.PadProbeReturn.OK

    def unprepared(self, _: object) -> None:
        self.live = False

    def view(self) -> dict[str, object]:
        """As streams/producer.go does: the connection, or the URL alone."""
        parts = urlsplit(self.url)
        masked = (
            urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))
            if "@" in self.url
            else self.url
        )
        exec_ = {"source": self.source} if self.source != self.url else {}
        if not self.live:
            return {"producers": [{"url": self.source if exec_ else masked}], "consumers": None}
        remote = f"{parts.hostname}:{parts.port}"
        return {
            "producers": [
                {
                    "id": 1,
                    "format_name": "rtsp",
                    "protocol": "rtsp+tcp",
                    "remote_addr": remote,
                    "url": masked,
                    "bytes_recv": 1,
                    **exec_,
                }
            ],
            "consumers": [{"id": 2, "format_name": "rtsp"}],
        }


class Api(BaseHTTPRequestHandler):
    """`/api/streams`, and `/stand-in` for the tests."""

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if mode == "hang":
            time.sleep(3600)
        body = {"garbage": b"<html>", "empty": b""}.get(mode)
        self.answer(
            200,
            json.dumps({n: s.view() for n, s in streams.items()}).encode()
            if body is None
            else body,
        )

    def do_PUT(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        name = query["name"][0]
        streams[name] = Stream(name, query["src"][0])
        self.answer(200)

    def do_DELETE(self) -> None:
        name = parse_qs(urlsplit(self.path).query)["src"][0]
        server.get_mount_points().remove_factory("/" + name)
        streams.pop(name, None)
        self.answer(200)

    def do_POST(self) -> None:
        global mode  # noqa: PLW0603 - one process, one stand-in
        if mode == "mute":
            for name, stream in streams.items():
                server.get_mount_points().add_factory("/" + name, stream.factory)
        mode = parse_qs(urlsplit(self.path).query)["mode"][0]
        if mode == "mute":  # who watches goes on; nobody else comes in
            for name in streams:
                server.get_mount_points().remove_factory("/" + name)
        self.answer(200)

    def log_message(self, *_: object) -> None:
        """Nothing."""


server.set_address("127.0.0.1")
server.set_service(sys.argv[2])
for argument in sys.argv[3:]:
    stream_name, _, stream_source = argument.partition("=")
    streams[stream_name] = Stream(stream_name, stream_source)
server.attach(None)
api = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api)
api.daemon_threads = True
threading.Thread(target=api.serve_forever, daemon=True).start()
print("ready", flush=True)


def watch(seconds: str) -> None:
    name, stream = next(iter(streams.items()))
    ends = time.monotonic() + float(seconds)
    viewer = subprocess.run(
        [
            "ffmpeg",
            "-nostdin",
            "-loglevel",
            "quiet",
            "-rtsp_transport",
            "tcp",
            "-i",
            f"rtsp://127.0.0.1:{sys.argv[2]}/{name}",
            "-t",
            seconds,
            "-f",
            "null",
            "-",
        ],
        check=False,
    )
    while stream.live:
        time.sleep(0.02)
    # After any end but ours GStreamer may have closed without TEARDOWN: not in good order. The
    # viewer calls that an end, too.
    os._exit(viewer.returncode or stream.broken or time.monotonic() < ends)


if seconds_watched := os.environ.get("WATCH_S"):
    threading.Thread(target=watch, args=(seconds_watched,), daemon=True).start()
GLib.MainLoop().run()
