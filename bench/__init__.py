"""Benchmarks: `python -m bench` prints one table of ratios. Nothing here is asserted, nothing is imported by the code."""
