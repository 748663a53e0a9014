"""GStreamer's RTSP server, serving files; for the system's Python: gst_server.py PORT PORT_WITH_DIGEST FILE ..."""

import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

Gst.init(None)


def serve(port: str, role: str) -> GstRtspServer.RTSPServer:
    """A server whose streams only `role` may see."""
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    for path in sys.argv[3:]:
        codec = "h265" if "265" in path else "h264"
        factory = GstRtspServer.RTSPMediaFactory()
        # A bare elementary stream has no timestamps to send, like cameras whose clock is broken.
        source = "qtdemux" if path.endswith(".mp4") else f"{codec}parse ! video/x-{codec},alignment=au"
        factory.set_launch(
            f"( filesrc location={path} ! {source} ! {codec}parse ! rtp{codec}pay name=pay0 config-interval=-1 )")
        if role:
            factory.add_role_from_structure(Gst.Structure.new_from_string(
                f"{role}, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"))
        server.get_mount_points().add_factory("/" + Path(path).stem, factory)
    return server


open_server, locked_server = serve(sys.argv[1], ""), serve(sys.argv[2], "user")
auth = GstRtspServer.RTSPAuth()
token = GstRtspServer.RTSPToken()
token.set_string("media.factory.role", "user")
auth.add_digest("viewer", "p@:/#%? \u00fc", token)
auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
locked_server.set_auth(auth)
open_server.attach(None)
locked_server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
