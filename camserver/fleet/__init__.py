"""One fleet over several hosts: membership, ownership and its hand-over. Only with [fleet]."""
