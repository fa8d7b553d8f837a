"""The administrator's command: `mailserver user`, `domain`, `auth`, `check`, `show`, `reload`, `demo`."""

from mailserver.cli.root import main

__all__ = ["main"]
