"""The commands of RFC 5321 and LMTP. A command that belongs to an extension stands in `mailserver.smtp.extensions`.

To add one: a module with `COMMANDS`, its name in `FAMILIES`. Only `mailserver.smtp.tables` reads `FAMILIES`.
"""

from __future__ import annotations

from mailserver.smtp.commands import basic, data, envelope, hello

FAMILIES = (hello, envelope, data, basic)
