"""The tables of submission and LMTP, made of all commands and extensions. `python -m mailserver.smtp` prints them."""

from __future__ import annotations

from typing import Final

from mailserver.smtp import commands, extensions
from mailserver.smtp.command import Role, build_table

FAMILIES: Final = (*commands.FAMILIES, *extensions.FAMILIES)
SUBMISSION: Final = build_table(FAMILIES, Role.SUBMISSION)
LMTP: Final = build_table(FAMILIES, Role.LMTP)
