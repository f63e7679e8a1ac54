"""Benchmarks: `python -m bench` prints one table of ratios. No time is asserted."""
