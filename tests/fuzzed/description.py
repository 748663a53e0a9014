"""A session description (SDP), and the URLs that are made of it."""

from __future__ import annotations

from camserver.rtsp.sdp import MAX_TRACKS, control_from_root, control_url, parse_sdp

BASE = "rtsp://127.0.0.1:554/live?channel=1"


def read(data: bytes) -> None:
    """Parse a description, and use all that is in it.

    Raises AssertionError when a URL could end or split a request line, or a limit is exceeded.
    """
    description = parse_sdp(data)
    assert len(description.tracks) <= MAX_TRACKS + 1
    spoken = description.spoken()
    video = description.video()
    assert video is None or video.kind == "video"
    assert not spoken or video is spoken[0]
    for control in (description.control, *(track.control for track in description.tracks)):
        for url in (control_url(BASE, control), control_from_root(BASE, control)):
            assert url is None or not any(c.isspace() or ord(c) < 32 or ord(c) == 127 for c in url)
    for track in description.tracks:
        assert 0 <= track.payload_type <= 127
        assert track.clock_hz > 0
        assert sum(len(unit) for unit in track.parameter_sets()) <= len(data)
        assert track.order_numbers is not None
        assert track.dimensions is None or all(0 < side < 65536 for side in track.dimensions)
