"""`camserver doctor`: the examination of a camera, its report, and the advice."""
