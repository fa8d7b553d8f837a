"""Tokens of local copies, which say when they were made: a table that is younger cannot tell what became of them."""

from __future__ import annotations

import re
import secrets
from typing import Final

_TOKEN: Final = re.compile(r"([0-9]{1,15})\.[0-9a-f]{32}")


def make_token(now: int) -> str:
    """Make a token. `now`: seconds since 1970."""
    return f"{now}.{secrets.token_hex(16)}"


def made_at(token: str) -> int | None:
    """Return when a token was made, in seconds since 1970; None if it does not say."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else int(found[1])
