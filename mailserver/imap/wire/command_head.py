"""The start of a command line: its tag and name (RFC 3501 9), or an HTTP request."""

from __future__ import annotations

import re
from typing import Final

# tag SP ["UID" SP] name: a tag is ASTRING-CHARs without "+".
HEAD: Final = re.compile(rb"([!#$&',-\[\]^-z|}~]+) ((?:[Uu][Ii][Dd] )?[A-Za-z0-9][A-Za-z0-9.=_-]*)(?= |\Z)")
"""Tag and name of a command."""
_TAG: Final = re.compile(rb"([!#$&',-\[\]^-z|}~]{1,64})(?: |\Z)")
HTTP_METHOD: Final = re.compile(rb"(?:GET|POST|HEAD|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|PRI) ")
# Each of these is a tag, so what follows decides.
HTTP: Final = re.compile(HTTP_METHOD.pattern + rb"(?:[/*]|\S+ HTTP/[0-9])")
"""The beginning of a request."""


def tag_of(line: bytes) -> bytes:
    """The tag of a line that is no command, `*` if it has none."""
    match = _TAG.match(line)
    return match[1] if match else b"*"
