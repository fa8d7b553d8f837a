"""`python -m mailserver.imap`: every IMAP command, where it is allowed, what it stands on, where its code is."""

from __future__ import annotations

import sys

from mailserver.imap.command import describe
from mailserver.imap.commands import TABLE


def markdown() -> str:
    """The table as docs/commands.md has it."""
    lines = [
        "# IMAP commands",
        "",
        "Made by `python -m mailserver.imap --markdown`; a test compares. `logged in` is authenticated or selected (RFC 3501 3).",
        "(The administrator's command is another: [administration.md](administration.md).)",
        "",
        "To add one: a module with a table `COMMANDS`, its name in `FAMILIES` (`imap/commands/__init__.py`), a transcript in",
        "`tests/transcripts/` that names its capability (`transcripts.md`), and this page made anew.",
        "",
        "| command | states | capabilities | reference | code |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in describe(TABLE)),
    ]
    return "\n".join(lines) + "\n"


def plain() -> str:
    """The table for a terminal."""
    rows = describe(TABLE)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) + "\n"
        for row in rows
    )


if __name__ == "__main__":
    sys.stdout.write(markdown() if sys.argv[1:] == ["--markdown"] else plain())
