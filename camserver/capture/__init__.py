"""The sources of pictures, and the isolated workers in which camera bytes meet C code."""
