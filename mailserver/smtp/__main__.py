"""`python -m mailserver.smtp`: every command and extension of submission and LMTP, with its file."""

from __future__ import annotations

import sys

from mailserver.session.command_table import align
from mailserver.smtp.command import describe_commands, describe_extensions
from mailserver.smtp.tables import LMTP, SUBMISSION


def plain() -> str:
    """The tables for a terminal."""
    parts = []
    for title, table in (("Submission", SUBMISSION), ("LMTP", LMTP)):
        commands = [(name, reference, path) for name, _before_tls, reference, path in describe_commands(table)]
        extensions = [(keyword, parameters, path) for keyword, parameters, _, _, path in describe_extensions(table)]
        parts.append(f"{title}: commands\n{align(commands)}\n{title}: extensions\n{align(extensions)}")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(plain())
