"""The administrator's command: `mailserver user`, `domain`, `cert`, `acme`, `auth`, `check`, `show`, `reload`, `status`, `who`, `kick`, `dns`, `client-settings`, `demo`."""

from mailserver.cli.root import main

__all__ = ["main"]
