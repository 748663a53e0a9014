"""What the doctor found of a camera, what it advises, and the inventory entry that follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from camserver.records import Result, SessionEnd

ADVICE = {
    Result.UNREACHABLE: "Is the camera on, the address right, the RTSP port open (554 on most)? Is RTSP switched on in its "
                        "settings?",
    Result.AUTH: "Check username and password in the camera's own web page. Some have an RTSP or ONVIF user of their own; "
                 "many lock a login for minutes after wrong tries, so don't try on and on.",
    Result.NOT_FOUND: "The path is wrong: the maker's manual or the camera's ONVIF page has it (/stream1, "
                      "/h264Preview_01_main, ...).",
    Result.FULL: "Somebody else has its sessions: go2rtc, an NVR, the maker's app? Close one, or give max_sessions as it is.",
    Result.TIMEOUT: "It accepts the connection and then says nothing: it may be full without saying so, or hang. Restart it, "
                    "or try transport = \"udp\".",
    Result.NO_KEYFRAME: "Its keyframes are far apart: set its I-frame interval to 1 or 2 seconds, or give timeout a larger "
                        "value.",
    Result.BAD_PICTURE: "Packets are lost or damaged on the way (Wi-Fi?), or the camera's encoder is faulty: try "
                        "transport = \"tcp\", a lower bit rate, or the sub-stream.",
    Result.ERROR: "What it offers can't be used as it is; engine = \"libav\" speaks some things that camserver doesn't.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One step: what was found, how long it took, and advice when it failed."""

    step: str
    ok: bool
    text: str
    ms: float | None = None
    advice: str = ""


@dataclass(slots=True)
class Report:
    """All findings in their order, and the keys of the inventory that follow from them."""

    findings: list[Finding] = field(default_factory=list)
    keys: dict[str, object] = field(default_factory=dict)

    known: str = ""
    """Id of a camera that is in the inventory already: then only what should change is said."""
    end: SessionEnd = SessionEnd.NONE
    """Of all sessions the worst."""
    pictures: int = 0
    """Ways by which one was had."""

    @property
    def ok(self) -> bool:
        """Whether pictures can be had, by one way at least."""
        return self.pictures > 0

    def toml(self) -> str:
        """What to paste; without the password. Nothing when no picture was had: an entry would promise one."""
        if not self.ok:
            return "# no picture was had: nothing to put into the inventory yet\n"
        if self.known:
            lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.keys.items()]
            return "\n".join([f"# for camera {self.known}: {'change' if lines else 'nothing to change'}", *lines]) + "\n"
        lines = ["[[camera]]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.keys.items())]
        lines += ['# password = "..."'] * ("username" in self.keys)
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """For programs."""
        return json.dumps({"ok": self.ok, "findings": [asdict(f) for f in self.findings], "camera": self.keys}, indent=1)
