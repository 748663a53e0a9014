"""One picture of one camera, from the sources in their order."""
