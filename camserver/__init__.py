"""camserver keeps a fresh JPEG of every IP camera on disk, within the RTSP sessions each camera can give."""

__version__ = "0.1.0"
