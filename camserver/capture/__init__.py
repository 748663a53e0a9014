"""Sources of pictures, and the isolated workers in which C code processes camera bytes."""
