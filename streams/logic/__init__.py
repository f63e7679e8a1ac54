"""The pure part of the stream processors: no I/O, no clock, no Faust."""
