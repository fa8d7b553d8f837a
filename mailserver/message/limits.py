"""How large a header may be, and how much of a larger one is looked at."""

from __future__ import annotations

from typing import Final

MAX_HEADER: Final = 256 * 1024
"""Octets of a header, with its empty line: of a message, of each part of it, and of each message in it. A message with a
larger one is refused on every way in."""

SEEN: Final = MAX_HEADER + 64 * 1024
"""Octets of a header that are looked at for what is told of it in a structured form: ENVELOPE, BODY, BODYSTRUCTURE, what
SEARCH keeps. Larger are headers that other programs have delivered; at delivery here a few fields are put before one."""
