"""When each camera is polled, and how many at once."""
