"""Clients for other programs: leases and pictures of a running daemon."""
