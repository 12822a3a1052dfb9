"""The command `discovery`: a thin layer over `Campaign` and `Archive`. Importing it loads nothing heavy."""

from discovery.cli.border import main

__all__ = ["main"]
