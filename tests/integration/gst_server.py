"""GStreamer's RTSP server, for the system's Python.

gst_server.py OPEN DIGEST BASIC TLS CERTIFICATE FILE ...: four ports, 0 for none; CERTIFICATE is a
PEM file with its key. Files are served by their stems; /live-h264 and /live-h265 are encoded once
for all who watch, so one joins in the middle.
"""

import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

Gst.init(None)
PORTS, CERTIFICATE, FILES = sys.argv[1:5], sys.argv[5], sys.argv[6:]
LIVE = (
    "videotestsrc is-live=true pattern=smpte100 !"
    " video/x-raw,format=I420,width=640,height=360,framerate=10/1"
)
PAYER = "name=pay0 config-interval=-1"
ENCODERS = {
    "h264": "x264enc tune=zerolatency key-int-max=20 quantizer=20 pass=quant",
    "h265": "x265enc tune=zerolatency key-int-max=20 qp=20",
}


def launches() -> dict[str, tuple[str, bool]]:
    """Path -> (pipeline, whether all clients share it)."""
    made = {}
    for path in FILES:
        if path.endswith(".avi"):
            made[Path(path).stem] = (
                f"filesrc location={path} ! avidemux ! jpegparse ! rtpjpegpay pt=26 name=pay0",
                False,
            )
            continue
        codec = "h265" if "265" in path else "h264"
        # A bare elementary stream has no timestamps to send, like cameras whose clock is broken.
        source = (
            "qtdemux" if path.endswith(".mp4") else f"{codec}parse ! video/x-{codec},alignment=au"
        )
        made[Path(path).stem] = (
            f"filesrc location={path} ! {source} ! {codec}parse ! rtp{codec}pay {PAYER}",
            False,
        )
    for codec, encoder in ENCODERS.items():
        made[f"live-{codec}"] = f"{LIVE} ! {encoder} ! {codec}parse ! rtp{codec}pay {PAYER}", True
    return made


def serve(port: str, role: str) -> GstRtspServer.RTSPServer:
    """A server whose streams only `role` may see."""
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    for name, (launch, shared) in launches().items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( {launch} )")
        factory.set_shared(shared)
        if role:
            factory.add_role_from_structure(
                Gst.Structure.new_from_string(
                    f"{role}, media.factory.access=(boolean)true,"
                    " media.factory.construct=(boolean)true"
                )
            )
        server.get_mount_points().add_factory("/" + name, factory)
    return server


def lock(server: GstRtspServer.RTSPServer, how: str) -> None:
    """Ask for a login, or speak TLS."""
    auth = GstRtspServer.RTSPAuth()
    if how == "tls":
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(CERTIFICATE))
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.set_default_token(token)
    else:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        if how == "digest":
            auth.add_digest("viewer", "p@:/#%? \u00fc", token)
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        else:
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic("viewer", "p@:/#%? \u00fc"), token)
    server.set_auth(auth)


servers = []
for port, how in zip(PORTS, ("open", "digest", "basic", "tls"), strict=True):
    if port != "0":
        servers.append(serve(port, "" if how == "open" else "user"))
        if how != "open":
            lock(servers[-1], how)
        servers[-1].attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
