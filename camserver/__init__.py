"""camserver keeps a fresh JPEG of every IP camera on disk.

It never takes more RTSP sessions than a camera can give.
"""

__version__ = "0.1.0"
