"""RTSP and RTP without I/O: bytes in, values out, and back.

Shared by the simulator and the coming native client.
"""
