"""Coverage-guided fuzzing of the whole client, from its bytes to a picture or an error.

`make fuzz ARGS=-max_total_time=600`.

A crash leaves its input in .fuzz; `make fuzz ARGS=.fuzz/crash-…` runs it again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

with atheris.instrument_imports(include=["camserver.rtsp", "camserver.capture.native"]):
    from fuzzed import talk

if __name__ == "__main__":
    atheris.Setup(sys.argv, talk)
    atheris.Fuzz()
