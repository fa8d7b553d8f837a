"""ESMTP extensions, one module each: the EHLO line, the parameters of MAIL and RCPT, the commands.

To add one: a module with `EXTENSIONS`, its name in `FAMILIES`, whose order is that of the lines in the reply to EHLO.
Only `mailserver.smtp.tables` reads `FAMILIES`. Begin with `size.py`.
"""

from __future__ import annotations

from mailserver.smtp.extensions import (
    auth,
    chunking,
    eightbitmime,
    enhancedstatuscodes,
    pipelining,
    size,
    smtputf8,
    starttls,
)

FAMILIES = (pipelining, size, eightbitmime, smtputf8, chunking, starttls, enhancedstatuscodes, auth)
