"""The archive: an index of its pictures, which pictures are deleted, and lists of pictures."""
