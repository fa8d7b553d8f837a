"""The text of the file of bans: a JSON object for each ban, a line each, below a first line with the version."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

from mailserver.auth.throttling.banned_clients import MAX_BANS
from mailserver.auth.throttling.bans import ADMINISTRATOR, MAX_REASON, SERVER, Ban, parse_client

LARGEST_FILE: Final = 64 << 20
_FIRST: Final = {"mailserver bans": 1}


class DamagedBans(ValueError):
    """The text is no whole file of bans."""


def to_text(bans: Iterable[Ban]) -> bytes:
    """The file's octets."""
    rows = [
        {
            "client": ban.client,
            "since": round(ban.since),
            "until": round(ban.until),
            "times": ban.times,
            "by": ban.by,
            "reason": ban.reason,
        }
        for ban in bans
    ]
    return "".join(json.dumps(row) + "\n" for row in [{**_FIRST, "rows": len(rows)}, *rows]).encode("ascii")


def from_text(data: bytes) -> list[Ban]:
    """The bans of a file; their `end` is 0. Raises: DamagedBans."""
    try:
        # At once: a hundred thousand calls would take a second.
        first, *rows = json.loads(f"[{','.join(data.decode('ascii').splitlines())}]")
        if not isinstance(first, dict) or first.get("mailserver bans") != 1 or first.get("rows") != len(rows):
            raise DamagedBans("not a whole file of bans")
        return [_ban(row) for row in rows[:MAX_BANS]]
    except (ValueError, RecursionError) as error:
        raise DamagedBans("not a whole file of bans") from error


def _ban(row: Any) -> Ban:
    """Raises: ValueError."""
    match row:
        case {
            "client": str(client),
            "since": int() | float() as since,
            "until": int() | float() as until,
            "times": int(times),
            "by": str(by),
            "reason": str(reason),
        } if math.isfinite(since) and math.isfinite(until) and times > 0 and by in (SERVER, ADMINISTRATOR):
            return Ban(parse_client(client), reason[:MAX_REASON], by, float(since), float(until), times)
    raise ValueError("malformed row")
