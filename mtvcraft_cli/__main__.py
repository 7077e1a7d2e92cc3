"""`python -m mtvcraft_cli` is the program `mtvcraft`."""

from mtvcraft_cli.cli import main

main()
