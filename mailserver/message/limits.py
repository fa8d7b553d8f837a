"""How large a header may be, and how much of a larger one is looked at."""

from __future__ import annotations

from typing import Final

MAX_HEADER: Final = 256 * 1024
"""Octets of a header, with its empty line: of a message, of each part of it, and of each message in it. A message with a
larger one is refused on every way in (`header_watch`)."""

SEEN: Final = MAX_HEADER + 64 * 1024
"""Octets of a header that are looked at for what is told of it in a structured form: ENVELOPE, BODY, BODYSTRUCTURE, the
lines and texts that are kept. Larger are headers that other programs have delivered; at delivery here a few fields are put
before one."""

ALL_SEEN: Final = 8 * 1024 * 1024
"""Octets of all headers of one message that are looked at for its structure. Parts behind that are plain text."""

ENVELOPES_SEEN: Final = 2 * 1024 * 1024
"""Octets of the headers of messages in a message that are looked at for their ENVELOPEs. What is behind is NIL."""
