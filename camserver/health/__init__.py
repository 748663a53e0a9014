"""Whether a camera's pictures show what they should: black, blurred, covered, moved, frozen.

The decoder measures each picture (capture/look.py). This package judges the numbers, for each
camera against its own past, and remembers that past. It never withholds a picture.
"""

from camserver.health.judge import Judge
from camserver.health.picture import Picture
from camserver.health.service import PictureHealth

__all__ = ["Judge", "Picture", "PictureHealth"]
