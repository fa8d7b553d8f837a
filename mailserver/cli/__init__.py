"""The administrator's command: `mailserver user`, `domain`, `check`, `show`, `reload`, `demo`."""

from mailserver.cli.root import main

__all__ = ["main"]
