"""The text of the file of bans: a JSON object for each ban, a line each, below a first line with the version."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import Any, Final

from mailserver.auth.throttling.banned_clients import MAX_BANS, client_number
from mailserver.auth.throttling.bans import ADMINISTRATOR, MAX_REASON, SERVER, Ban, parse_client

LARGEST_FILE: Final = 64 << 20
STEP: Final = 1000
"""Bans that are read at a time: some hundredths of a second."""
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


def from_text(data: bytes) -> Iterator[list[Ban]]:
    """The bans of a file, STEP of them at a time; their `end` is 0. Each step may raise DamagedBans, the first one for a cut file."""
    try:
        first, *lines = data.decode("ascii").splitlines()
        head = json.loads(first)
        if not isinstance(head, dict) or head.get("mailserver bans") != 1 or head.get("rows") != len(lines):
            raise DamagedBans("not a whole file of bans")
        del lines[MAX_BANS:]
        for at in range(0, len(lines), STEP):
            # One call for many rows: a hundred thousand calls would take a second.
            yield [_ban(row) for row in json.loads(f"[{','.join(lines[at : at + STEP])}]")]
    except (ValueError, RecursionError) as error:
        raise DamagedBans("not a whole file of bans") from error


def _number_of(client: str) -> int:
    """The number of a client. Raises: ValueError."""
    try:
        # The form that `to_text` writes, several times as fast as any other.
        return client_number(IPv4Address(socket.inet_pton(socket.AF_INET, client)))
    except OSError:
        return parse_client(client)


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
            return Ban(_number_of(client), reason[:MAX_REASON], by, float(since), float(until), times)
    raise ValueError("malformed row")
