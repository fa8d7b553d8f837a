"""All POP3 commands. To add one: a module with `COMMANDS`, its name in `FAMILIES`. `python -m mailserver.pop3` prints them.

The order of `FAMILIES` is that of the lines in the answer to CAPA.
"""

from __future__ import annotations

from typing import Final

from mailserver.pop3.command import build_table
from mailserver.pop3.commands import capa, login, messages, retrieve, stls, utf8

FAMILIES: Final = (retrieve, messages, capa, login, stls, utf8)

TABLE: Final = build_table(FAMILIES)
