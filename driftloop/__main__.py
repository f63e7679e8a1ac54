"""`python -m driftloop` is the command `driftloop`."""

from driftloop.cli import main

main()
