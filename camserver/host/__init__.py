"""Interfaces to the host: the event loop, systemd, the journal, the clock, locks, secrets."""
