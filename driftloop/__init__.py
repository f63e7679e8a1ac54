"""Composition: command line, settings, supervisor, replay, demo and the embedded stack."""
