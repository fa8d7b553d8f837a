"""Messages like people's, and one of a hundred that is hostile: the same octets in every run, with LF line ends.

A hostile message has what costs a parser most for its size, at most some 250 KiB: long headers, many or deeply nested
parts, broken MIME, binary data, long lines, wrong charsets. No CR or NUL is in it, as servers differ there.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks import corpus
from benchmarks.mail import Mail

ONE_OF = 100
"""One of so many messages is hostile."""
FIRST = 50
"""The first of them."""

_HEAD = "From: {sender}\nTo: u1@example.test\nSubject: {kind}\nDate: {date}\nMessage-ID: <{seed}@hostile.example>\nMIME-Version: 1.0\n"


def message(seed: int) -> bytes:
    """Return the message of a seed."""
    if seed % ONE_OF != FIRST:
        return corpus.message(seed)
    kinds = list(KINDS.items())
    return _hostile(seed, *kinds[seed // ONE_OF % len(kinds)])


def _sized(octets: int, number: int) -> bytes:
    """Return a message to send: of that size, or the hostile one of that number."""
    return message(number) if number % ONE_OF == FIRST else corpus.message_of(octets)


def _hostile(seed: int, kind: str, body: Callable[[random.Random], bytes]) -> bytes:
    rng = random.Random(seed)
    date = f"{1 + seed % 28} Nov 2023 12:00:00 +0000"
    head = _HEAD.format(sender="mallory@hostile.example", kind=kind, date=date, seed=seed)
    return head.encode() + body(rng)


def _long_header(rng: random.Random) -> bytes:
    lines = [f"X-Field-{number}: {rng.randrange(10**30)}\n" for number in range(4500)]
    return "".join(lines).encode() + b"\nbody\n"


def _long_field(rng: random.Random) -> bytes:
    words = "\n ".join(f"=?utf-8?q?w{rng.randrange(10**6)}?=" for _ in range(8000))
    return f"Comments: {words}\n\nbody\n".encode()


def _recipients(rng: random.Random) -> bytes:
    addresses = ",\n ".join(f'"Name {number}" <a{rng.randrange(10**6)}@example.net>' for number in range(5000))
    return f"Cc: {addresses}\n\nbody\n".encode()


def _parts(rng: random.Random) -> bytes:
    parts = b"--b\n\nx\n" * (10_000 - rng.randrange(100))
    return b"Content-Type: multipart/mixed; boundary=b\n\n" + parts + b"--b--\n"


def _nested(rng: random.Random) -> bytes:
    levels = 2000 + rng.randrange(100)
    lines = [f"Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n" for level in range(levels)]
    ends = [f"--b{level}--\n" for level in reversed(range(levels))]
    return "".join([*lines, "Content-Type: text/plain\n\ninnermost\n", *ends]).encode()


def _nested_messages(rng: random.Random) -> bytes:
    return b"Content-Type: message/rfc822\n\nSubject: x\n" * (3000 + rng.randrange(100)) + b"\ninnermost\n"


def _broken(rng: random.Random) -> bytes:
    lines = [b"Content-Type: multipart/mixed; boundary=b; boundary=c; charset\n\n"]
    for number in range(2000):
        lines.append(b'--b\nContent-Type: text/; name="x\nContent-Transfer-Encoding: base64\n\n=Q==Q=%d\n' % number)
        if rng.random() < 0.5:
            lines.append(b"no colon\n--b-\n")
    return b"".join(lines)


def _binary(rng: random.Random) -> bytes:
    data = rng.randbytes(200_000).translate(None, b"\r\n\0")
    return b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: binary\n\n" + data + b"\n"


def _long_line(rng: random.Random) -> bytes:
    return b"Content-Type: text/html; charset=utf-8\n\n" + b"<b>word &amp; " * (15_000 + rng.randrange(1000)) + b"\n"


def _wrong_charset(rng: random.Random) -> bytes:
    text = rng.randbytes(100_000).translate(None, b"\r\n\0")
    lines = b"\n".join(text[start : start + 70] for start in range(0, len(text), 70))
    return b"Content-Type: text/plain; charset=utf-7\nContent-Transfer-Encoding: 8bit\n\n" + lines + b"\n"


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "long header": _long_header,
    "long field": _long_field,
    "recipients": _recipients,
    "parts": _parts,
    "nested": _nested,
    "nested messages": _nested_messages,
    "broken": _broken,
    "binary": _binary,
    "long line": _long_line,
    "wrong charset": _wrong_charset,
}
"""What a hostile message consists of after its first fields, by the name of its kind."""

HOSTILE = Mail(message, _sized)
