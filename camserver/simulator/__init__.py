"""Simulated RTSP cameras: the demo's cameras, the tests' fault injector, the benchmark's fleet."""
