"""`python -m mailserver.pop3`: every POP3 command, its states, capabilities, reference and file."""

from __future__ import annotations

import sys

from mailserver.pop3.command import describe
from mailserver.pop3.commands import TABLE
from mailserver.session.command_table import align


def plain() -> str:
    """The table for a terminal."""
    return align(describe(TABLE))


if __name__ == "__main__":
    sys.stdout.write(plain())
