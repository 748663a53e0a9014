"""HTTP of cameras' snapshot URLs, without I/O: heads, bodies, and the picture in a body.

Cameras break the rules of HTTP in many ways. What is a whole picture is taken, however it came.
"""
