"""The administrator's command: `mailserver user`, `domain`, `auth`, `check`, `show`, `reload`, `status`, `who`, `kick`, `dns`, `client-settings`, `demo`."""

from mailserver.cli.root import main

__all__ = ["main"]
