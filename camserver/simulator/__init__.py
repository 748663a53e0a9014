"""Simulated RTSP cameras for the demo, for tests with faults, and for benchmarks with fleets."""
