"""Polling: when each camera is polled, and how many cameras at once."""
