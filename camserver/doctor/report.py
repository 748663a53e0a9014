"""The doctor's findings about a camera, and the inventory entry that results."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One step: what was found, how long it took in ms, and advice when it failed."""

    step: str
    ok: bool
    text: str
    ms: float | None = None
    advice: str = ""


@dataclass(slots=True)
class Report:
    """All findings in their order, and the inventory keys that result from them."""

    findings: list[Finding] = field(default_factory=list)
    keys: dict[str, object] = field(default_factory=dict)

    known: str = ""
    """The id, if the camera is in the inventory. Then `keys` has only what should change."""
    pictures: int = 0
    """The number of sources that gave a picture."""
    picture: str = ""
    """Size and codec of the first picture."""
    keyframe_every_s: float | None = None
    login_refused: bool = False
    """A login was sent and refused; it is not tried again."""
    reader: str = ""
    """What read the first picture: native, libav, snapshot URL."""

    @property
    def ok(self) -> bool:
        """Whether at least one source gave a picture."""
        return self.pictures > 0

    @property
    def failure(self) -> Finding | None:
        """The first finding that failed; None when none did."""
        return next((finding for finding in self.findings if not finding.ok), None)

    def lines(self) -> list[str]:
        """Return the keys as lines of the inventory."""
        return [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in self.keys.items()
        ]

    def toml(self) -> str:
        """Return the text to paste into the inventory, without the password.

        Without a picture it is only a comment: an entry would promise a picture.
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
        """Return the report as JSON values, for programs."""
        return {
            "ok": self.ok,
            "findings": [asdict(f) for f in self.findings],
            "camera": self.keys if self.ok else {},
        }

    def json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.as_dict(), indent=1)
