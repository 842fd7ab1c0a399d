"""The command line: one small file a command; each parses, calls a workflow and prints."""

from litestage.cli.main import app, main

__all__ = ["app", "main"]
