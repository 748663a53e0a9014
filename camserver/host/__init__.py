"""The host's doors: systemd, the journal, the clock, secrets."""
