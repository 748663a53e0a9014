"""The go2rtc server beside camserver: which streams it shows live, and its API."""
