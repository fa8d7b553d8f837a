"""Limits of the size of headers, and of how much of larger ones is parsed."""

from __future__ import annotations

from typing import Final

MAX_HEADER: Final = 256 * 1024
"""Octets of a header, with its empty line: of a message, of each part, and of each message in it. A message with a
larger one is refused on every way in (`header_size`).
"""

SEEN: Final = MAX_HEADER + 64 * 1024
"""Octets of a header that are parsed for ENVELOPE, BODY, BODYSTRUCTURE, and the kept lines and texts. Larger headers
come from other programs; a delivery here adds a few fields before one.
"""

ALL_SEEN: Final = 8 * 1024 * 1024
"""Octets of all headers of one message that are parsed for its structure. Later parts are plain text."""

ENVELOPES_SEEN: Final = 2 * 1024 * 1024
"""Octets of the headers of messages in a message that are parsed for their ENVELOPEs. Later ones are NIL."""
