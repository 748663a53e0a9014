"""Worker processes: a pool with limits, and the sandbox of a worker."""
