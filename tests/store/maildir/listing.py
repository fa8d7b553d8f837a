"""The messages of a Maildir directory as a test sees them."""

from __future__ import annotations

import os

from mailserver.store.maildir.sync import scan


def messages_in(path: str) -> dict[str, scan.Found]:
    """By base."""
    new, cur = (scan.read_directory(os.path.join(path, part)).names for part in ("new", "cur"))
    return scan.classify(new, cur)[0]
