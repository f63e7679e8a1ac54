"""Faust stream processors: validate, deduplicate and count per partition; merge, measure and judge per model."""
