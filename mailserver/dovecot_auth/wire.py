"""Lines of Dovecot's authentication protocol 1.x without I/O: an untrusted client's are parsed, the server's are made.

A line is a command and its parameters, separated by tabs; LF ends it. Octets that would break this are escaped by \\001.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from attrs import field, frozen

MAX_LINE: Final = 16384
"""Octets of the longest line, its LF included. A SASL message of 12288 octets (RFC 4954 4) fits."""
MAJOR: Final = 1
MINOR: Final = 2
"""The protocol's version. Clients compare the major number alone."""
_MAX_ID: Final = 2**32 - 1

_ESCAPES: Final = {b"0": b"\0", b"1": b"\1", b"t": b"\t", b"r": b"\r", b"l": b"\n", b"n": b"\n"}
_ESCAPED: Final = re.compile(rb"\x01(.?)", re.DOTALL)
_SPECIAL: Final = re.compile(rb"[\x00\x01\t\r\n]")
_REPLACED: Final = {b"\0": b"\x010", b"\1": b"\x011", b"\t": b"\x01t", b"\r": b"\x01r", b"\n": b"\x01l"}
_NUMBER: Final = re.compile(rb"[0-9]{1,10}")
_MECHANISM: Final = re.compile(rb"[A-Za-z0-9_-]{1,20}")
_LONGEST_VALUE: Final = 1024


class ProtocolError(Exception):
    """The client breaks the protocol, and the connection cannot go on. The text is a reason for the log."""


@frozen
class Version:
    """VERSION. The minor number says only which parameters the client knows."""

    major: int


@frozen
class ClientProcess:
    """CPID: the client's process."""

    number: int


@frozen
class Authenticate:
    """AUTH: the begin of an exchange."""

    id: int
    mechanism: str
    """Upper case."""
    parameters: dict[str, str] = field(factory=dict)
    """Values by name, "" for a parameter without one. Unknown names are kept."""
    initial: bytes | None = field(default=None, repr=False)
    """The initial response in base64; b"" for an empty one, None without one."""


@frozen
class Continue:
    """CONT: the client's next message of an exchange."""

    id: int
    data: bytes = field(repr=False)
    """In base64."""


@frozen
class Cancel:
    """CANCEL: the client needs no answer any more."""

    id: int


Command: TypeAlias = Version | ClientProcess | Authenticate | Continue | Cancel


class CommandReader:
    """Cuts a client's octets into lines and parses them. It holds one line at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> bool:
        """Is there the begin of a line?"""
        return bool(self._buffer)

    def receive_data(self, data: bytes) -> None:
        """Add octets of the client."""
        self._buffer += data

    def commands(self) -> Iterator[Command]:
        """Yield the commands of all whole lines. Raises: ProtocolError, also for the begin of a line that is too long."""
        while (end := self._buffer.find(b"\n", 0, MAX_LINE)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            yield parse(line)
        if len(self._buffer) >= MAX_LINE:
            self._buffer.clear()
            raise ProtocolError(f"a line is longer than {MAX_LINE} octets")


def parse(line: bytes) -> Command:
    """Parse a line without its LF. Raises: ProtocolError."""
    word, _tab, rest = line.partition(b"\t")
    match word:
        case b"AUTH":
            return _parse_auth(rest)
        case b"CONT":
            number, _tab, data = rest.partition(b"\t")
            return Continue(_id(number), data)
        case b"CANCEL":
            return Cancel(_id(rest.partition(b"\t")[0]))
        case b"VERSION":
            return Version(_number(rest.partition(b"\t")[0]))
        case b"CPID":
            return ClientProcess(_number(rest.partition(b"\t")[0]))
    raise ProtocolError("unknown command")


def _parse_auth(rest: bytes) -> Authenticate:
    number, _tab, rest = rest.partition(b"\t")
    mechanism, _tab, rest = rest.partition(b"\t")
    if not _MECHANISM.fullmatch(mechanism):
        raise ProtocolError("AUTH without a mechanism")
    # The initial response is the last parameter: a tab in what a user has sent must not begin another one.
    initial: bytes | None = None
    if rest.startswith(b"resp="):
        rest, initial = b"", rest.removeprefix(b"resp=")
    else:
        rest, found, last = rest.partition(b"\tresp=")
        initial = last if found else None
    parameters: dict[str, str] = {}
    for each in rest.split(b"\t") if rest else ():
        name, _equals, value = each.partition(b"=")
        key = _text(name)
        if key in parameters:
            raise ProtocolError("AUTH has a parameter twice")
        parameters[key] = _text(value)
    return Authenticate(_id(number), mechanism.decode("ascii").upper(), parameters, initial)


def unescape(value: bytes) -> bytes:
    """The octets of an escaped value. An unknown escape stands for its second octet, as in Dovecot."""
    if b"\1" not in value:
        return value
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), value)


def escape(value: str) -> bytes:
    """A value for a parameter."""
    return _SPECIAL.sub(lambda found: _REPLACED[found[0]], value.encode("utf-8", "replace"))


def _text(value: bytes) -> str:
    return unescape(value).decode("utf-8", "replace")


def _number(digits: bytes) -> int:
    if not _NUMBER.fullmatch(digits):
        raise ProtocolError("a number is missing")
    return int(digits)


def _id(digits: bytes) -> int:
    found = _number(digits)
    if not 0 < found <= _MAX_ID:
        raise ProtocolError("the id of a request is not between 1 and 4294967295")
    return found


def handshake(mechanisms: Mapping[str, tuple[str, ...]], *, process: int, connection: int, cookie: str) -> bytes:
    """The server's first lines: the mechanisms with their properties, and numbers that Dovecot's own clients ask for.

    `cookie`: 32 hexadecimal digits.
    """
    lines = [b"VERSION\t%d\t%d" % (MAJOR, MINOR)]
    lines += [_line("MECH", name, *properties) for name, properties in mechanisms.items()]
    lines += [b"SPID\t%d" % process, b"CUID\t%d" % connection, _line("COOKIE", cookie), b"DONE"]
    return b"".join(line + b"\n" for line in lines)


def success(number: int, user: str, last: bytes | None = None) -> bytes:
    """OK. `last`: the server's last SASL message in base64, for a client that takes it with the answer."""
    parameters = [b"user=" + escape(user[:_LONGEST_VALUE])]
    if last is not None:
        parameters.append(b"resp=" + last)
    return b"\t".join([b"OK", b"%d" % number, *parameters]) + b"\n"


def challenge(number: int, data: bytes) -> bytes:
    """CONT, with data in base64."""
    return b"CONT\t%d\t%b\n" % (number, data)


def failure(number: int, *, user: str = "", reason: str = "", code: str = "") -> bytes:
    """FAIL. `code`: "temp_fail", if the password was not checked; "authz_fail", if the user may not act for another one."""
    parameters = [b"user=" + escape(user[:_LONGEST_VALUE])] if user else []
    if code == "temp_fail":
        parameters.append(b"temp")
    elif code == "authz_fail":
        parameters.append(b"authz")
    if code:
        parameters.append(b"code=" + escape(code))
    if reason:
        parameters.append(b"reason=" + escape(reason[:_LONGEST_VALUE]))
    return b"\t".join([b"FAIL", b"%d" % number, *parameters]) + b"\n"


def _line(*words: str) -> bytes:
    return b"\t".join(map(escape, words))
