"""How well pictures are judged: health_table.py [--check]. It prints the table of docs/health.md.

Each sequence is one scene, seen for half an hour, and something that befalls the camera then. With
`--check` the status is 1 when the table differs from the one in docs/health.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from footage import SCENES
from health_cases import FAULTS, QUIET, Camera, results

from camserver.model import Suspicion

DOCUMENT = Path(__file__).parents[1] / "docs" / "health.md"
HEAD = ("suspicion", "sequences with it", "found", "false alarms", "precision", "recall")


def main() -> int:
    """Print the table. Returns the exit status."""
    cameras = [Camera(scene) for scene in SCENES.values()]
    for camera in cameras:
        camera.learn()
    there, found, wrong = Counter[Suspicion](), Counter[Suspicion](), Counter[Suspicion]()
    names = {id(scene): name for name, scene in SCENES.items()}
    for camera, case in results(cameras, (*FAULTS, *QUIET)):
        expected = {case.expected} - {None}
        there.update(expected)
        found.update(camera.found & expected)
        wrong.update(camera.found - expected)
        for missed in expected - camera.found:
            print(f"missed: {missed} ({case.name}, {names[id(camera.scene)]})", file=sys.stderr)
        for alarm in camera.found - expected:
            print(f"false: {alarm} ({case.name}, {names[id(camera.scene)]})", file=sys.stderr)
    rows = [
        (
            f"`{suspicion}`",
            there[suspicion],
            found[suspicion],
            wrong[suspicion],
            f"{found[suspicion] / max(1, found[suspicion] + wrong[suspicion]):.2f}",
            f"{found[suspicion] / there[suspicion]:.2f}",
        )
        for suspicion in Suspicion
    ]
    rows.append(("(nothing)", len(QUIET) * len(cameras), "", "", "", ""))
    table = "\n".join(
        "| " + " | ".join(str(cell) for cell in row) + " |"
        for row in (HEAD, ["---"] * len(HEAD), *rows)
    )
    print(table)
    return int("--check" in sys.argv and table not in DOCUMENT.read_text())


if __name__ == "__main__":
    sys.exit(main())
