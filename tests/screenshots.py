"""Screenshots of the wall page for the README: screenshots.py FOLDER.

It writes wall-{desktop,phone}-{light,dark}.png and camera.png.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


from browser import wall_of

from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.simulator.serve import NAMES

SIZES = {"desktop": {"width": 1200, "height": 640}, "phone": {"width": 390, "height": 700}}


def main(folder: Path) -> None:
    """Run twelve cameras, two with a fault and one that is frozen, and take the screenshots."""
    faults = {3: "refuse", 7: "no-keyframe"}
    cameras = [
        SimulatedCamera(
            f"cam{n}",
            NAMES[n - 1] if n <= len(NAMES) else f"Camera {n}",
            gop=2,
            fault=Fault(faults.get(n, "none")),
            quirk="frozen" if n == 5 else "",
        )
        for n in range(1, 13)
    ]
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(shoot(Path(name), folder, cameras))


async def shoot(work: Path, folder: Path, cameras: list[SimulatedCamera]) -> None:
    """Take screenshots of the wall and of one camera, in both colour schemes."""
    more = '[health]\nfrozen_after = "4s"\n'
    async with wall_of(work, cameras, more=more, interval="2s", timeout="3s") as room:
        desk = room.desk
        await desk.until(
            lambda: (
                desk.facts("cam7")["attempt"]["result"] and desk.facts("cam12").get("captured_at")
            )
        )
        await desk.until(lambda: desk.facts("cam5")["health"]["state"] == "frozen")
        for size, viewport in SIZES.items():
            for scheme in ("light", "dark"):
                page = await room.page(viewport=viewport, color_scheme=scheme)
                await page.wait_for_function(
                    "() => [...document.querySelectorAll('.tile img')].filter(i => i.src).length"
                    " >= 8"
                )
                await page.wait_for_timeout(500)
                await page.screenshot(path=folder / f"wall-{size}-{scheme}.png")
        page = await room.page("/#cam1", viewport=SIZES["desktop"] | {"height": 900})
        await page.wait_for_timeout(3000)
        await page.screenshot(path=folder / "camera.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
