"""Snapshots: take one picture of one camera, from its sources in order."""
