"""Fields of an incoming message that are not passed on: Received is counted, forged and private fields are removed.

*   Too many Received fields are a loop (RFC 5321 6.3).
*   A Return-Path is removed: final delivery writes it, and there is exactly one (RFC 5321 4.4).
*   Bcc of a submitted message is removed, as its recipients are in the envelope (RFC 5322 3.6.3).
*   Delivered-To of a submitted message is removed: whoever sends a message once more means no loop (`filing.trace`).
*   Authentication-Results and Received-SPF in the name of this server or of a domain here are removed (RFC 8601 5,
    RFC 7208 9.1), as the author of the message may have forged them. By LMTP they stay if the listener's configuration
    says that the transfer agent removes forged ones; the others are then the agent's own.

No header has more than MAX_HEADER octets here (`Incoming`). All other fields are passed on as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mailserver.filing.trace import check_hops
from mailserver.message.limits import MAX_HEADER
from mailserver.smtp.incoming import Incoming

_REMOVABLE = re.compile(
    rb"^(return-path|authentication-results|received-spf|(?:resent-)?bcc|delivered-to)[ \t]*:(.*\n(?:[ \t].*\n)*)",
    re.IGNORECASE | re.MULTILINE,
)
_FORGEABLE_NAMES: Final = (b"return-path", b"authentication-results", b"received-spf")
_SPF_RECEIVER = re.compile(r'(?i)(?:^|[\s;(])receiver[ \t]*=[ \t]*"?([^\s;()"]+)')
_COMMENTS = re.compile(r"[ \t\r\n]+|\([^()\\]*+\)|\(+|\)+|\\[\s\S]?|[^ \t\r\n()\\]+")
"""Pieces of a field: space, a comment without others in it, parentheses, a quoted pair, other text. No step is an octet."""
_VERIFIER = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s;()"]+)')


async def check_trace(
    incoming: Incoming, is_ours: Callable[[str], bool] | None = None, *, submitted: bool = False
) -> bytes:
    """Count Received fields, and remove those that only this server may write; of a submitted message Bcc, too.

    `is_ours` recognises this server's authserv-ids; None keeps all results. Returns the header, as far as it was examined.

    Raises: MailLoop, StoreUnavailable.
    """
    start = await incoming.read(0, MAX_HEADER)
    end = -2 if start.startswith(b"\r\n") else start.find(b"\r\n\r\n")
    header = start if end == -1 else start[: end + 2]
    lower = header.lower()
    check_hops(header)
    names = (b"return-path",) if is_ours is None else _FORGEABLE_NAMES
    if submitted:
        names = (*names, b"bcc", b"delivered-to")
    if not any(name in lower for name in names):
        return header

    def judge(field: re.Match[bytes]) -> bytes:
        name = field[1].lower()
        if name == b"return-path":
            return b""
        if name.endswith((b"bcc", b"delivered-to")):
            return b"" if submitted else field[0]
        if is_ours is None:
            return field[0]
        verifiers = _receivers(field[2]) if name == b"received-spf" else [_verifier(field[2])]
        return b"" if any(map(is_ours, verifiers)) else field[0]

    kept = _REMOVABLE.sub(judge, header)
    if len(kept) != len(header):
        incoming.replace_start(len(header), kept)
    return kept


def _receivers(body: bytes) -> list[str]:
    """Receivers that a Received-SPF field names (RFC 7208 9.1), in lower case."""
    return [name.lower().rstrip(".") for name in _SPF_RECEIVER.findall(body.decode("latin-1"))]


def _verifier(body: bytes) -> str:
    """The authserv-id of an Authentication-Results field (RFC 8601 2.2) in lower case: the first word but comments."""
    text = body.decode("latin-1")
    depth = 0
    for found in _COMMENTS.finditer(text):
        piece = found[0]
        if piece.startswith("("):
            depth += 0 if piece.endswith(")") else len(piece)
        elif piece.startswith(")") and depth:
            depth -= len(piece)
            if depth < 0:
                return ""
        elif not depth and not piece.isspace():
            break
    else:
        return ""
    word = _VERIFIER.match(text, found.start())
    return (word[1] or word[2] or "").lower().rstrip(".") if word else ""
