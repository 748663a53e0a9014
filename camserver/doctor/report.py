"""What the doctor found of a camera, and the inventory entry that follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


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
    pictures: int = 0
    """Ways by which one was had."""
    picture: str = ""
    """Size and codec of the first that was had."""
    keyframe_every_s: float | None = None
    login_refused: bool = False
    """A login was sent and refused: it is not tried again."""
    reader: str = ""
    """Which client reads it: native, libav, snapshot URL."""

    @property
    def ok(self) -> bool:
        """Whether pictures can be had, by one way at least."""
        return self.pictures > 0

    @property
    def failure(self) -> Finding | None:
        """The first step that failed."""
        return next((finding for finding in self.findings if not finding.ok), None)

    def lines(self) -> list[str]:
        """The keys as lines of the inventory."""
        return [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.keys.items()
        ]

    def toml(self) -> str:
        """What to paste; without the password.

        Nothing when no picture was had: an entry would promise one.
        """
        if not self.ok:
            return "# no picture was had: nothing to put into the inventory yet\n"
        failed = ["# look at what failed above first"] * (self.failure is not None)
        if self.known:
            words = "change" if self.keys else "nothing to change"
            head = [f"# for camera {self.known}: {words}"] if self.keys or not failed else []
            return "\n".join([*failed, *head, *self.lines()]) + "\n"
        password = ['# password = "..."'] * ("username" in self.keys)
        return "\n".join([*failed, "[[camera]]", *self.lines(), *password]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.ok,
            "findings": [asdict(f) for f in self.findings],
            "camera": self.keys if self.ok else {},
        }

    def json(self) -> str:
        """The same as text."""
        return json.dumps(self.as_dict(), indent=1)
