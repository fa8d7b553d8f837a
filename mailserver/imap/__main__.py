"""`python -m mailserver.imap`: every IMAP command, where it is allowed, what it stands on, where its code is."""

from __future__ import annotations

import sys

from mailserver.imap.command import describe
from mailserver.imap.commands import TABLE


def plain() -> str:
    """The table for a terminal."""
    rows = describe(TABLE)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) + "\n"
        for row in rows
    )


if __name__ == "__main__":
    sys.stdout.write(plain())
