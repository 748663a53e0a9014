"""The daemon's HTTP API: on a unix socket for programs, on TCP for browsers and Prometheus."""
