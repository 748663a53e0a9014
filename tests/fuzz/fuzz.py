"""Coverage-guided fuzzing of one target: `fuzz.py TARGET CORPUS… [libFuzzer's options]`.

`make fuzz ARGS=-max_total_time=600` runs all targets, one after the other. The targets are in
tests/fuzzed. A crash leaves its input in .fuzz; `python tests/fuzz/fuzz.py TARGET FILE` runs it
again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

with atheris.instrument_imports(
    include=["camserver.rtsp", "camserver.capture.native", "camserver.capture.http"]
):
    from fuzzed import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
