"""Pure functions from a window's counts or rows to numbers. No I/O, no time."""
