"""The daemon for other programs: HTTP on a unix socket, and the clients of it."""
