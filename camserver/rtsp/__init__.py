"""RTSP and RTP without I/O: bytes to values, and values to bytes.

The native client and the simulator share this package.
"""
