"""A go2rtc beside camserver: what it shows live, and its API."""
