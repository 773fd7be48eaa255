"""`python -m jnas` is `jnas`."""

from jnas.cli import command

command()
