"""STARTTLS injection: does a listener execute commands that arrived before the handshake?

An attacker between client and server can insert them. A server that executes them inside TLS runs the attacker's commands in
the client's session (CVE-2011-0411, CVE-2021-38371 and many others). Two ways are tried: in the same segment as STARTTLS,
and between its answer and the handshake.
"""

from __future__ import annotations

import socket
import time
from typing import Final, Literal

from attrs import frozen
from OpenSSL import SSL

from mailserver.probe.handshake import exchange, flush, shake_hands
from mailserver.probe.place import MOST, WORDS, NotOffered, NotReached, Place, begin, expect, shown

WAYS: Final[tuple[Way, ...]] = ("with the command", "before the handshake")
SILENCE: Final = 0.5
"""Seconds to wait for an answer."""

Way = Literal["with the command", "before the handshake"]
State = Literal["refused", "swallowed", "executed", "not tried"]


@frozen
class Verdict:
    """The result of one injection at a listener."""

    place: str
    way: Way
    state: State
    """`swallowed`: TLS started and they had no effect. That is harmless, but hides an attack."""
    words: str


def inject(place: Place, way: Way) -> Verdict:
    """Try one way of injection. Raises nothing."""
    try:
        with place.connected() as plain:
            state, words = _inject(plain, place.listener.family, way)
    except NotReached as error:
        state, words = "not tried", str(error)
    except NotOffered as error:
        state, words = "not tried", f"STARTTLS is not offered: {error}"
    except OSError as error:
        state, words = "refused", f"the connection ends: {error.strerror or error}"
    return Verdict(str(place), way, state, words)


def _inject(plain: socket.socket, family: str, way: Way) -> tuple[State, str]:
    words = WORDS[family]
    begin(plain, family)
    if way == "with the command":
        plain.sendall(words.start + words.harmless)
        try:
            answer = expect(plain, words.started)
        except NotOffered as refusal:
            return "refused", f"it says {refusal}"
        except NotReached:
            return "refused", "it says nothing more"
        behind = answer.partition(b"\r\n")[2]
    else:
        plain.sendall(words.start)
        expect(plain, words.started)
        plain.sendall(words.harmless)
        behind = b""
    behind += _waiting(plain)
    if _is_answer(behind, words.answered):
        return "executed", f"it answers in clear text: {shown(behind)}"
    try:
        connection, seen = shake_hands(plain, None)
    except NotReached as error:
        return "refused", str(error)
    if seen.fault:
        return "refused", f"no handshake: {seen.fault}"
    heard = _listen(plain, connection, words.answered)
    if _is_answer(heard, words.answered):
        return "executed", f"it answers inside TLS: {shown(heard)}"
    if heard is _CLOSED:
        return "refused", "the connection ends after the handshake"
    return "swallowed", "TLS starts as if nothing had been sent"


_CLOSED: Final = b"\x00closed"


def _is_answer(heard: bytes, answered: bytes) -> bool:
    return any(line.startswith(answered) for line in heard.split(b"\r\n"))


def _waiting(plain: socket.socket) -> bytes:
    """Return octets that arrived before TLS, without consuming them."""
    plain.settimeout(SILENCE)
    try:
        return plain.recv(4096, socket.MSG_PEEK)
    except TimeoutError:
        return b""


def _listen(plain: socket.socket, connection: SSL.Connection, answered: bytes) -> bytes:
    """Return what arrives inside TLS without a command."""
    heard = b""
    end = time.monotonic() + SILENCE
    flush(plain, connection)
    while len(heard) < MOST and not _is_answer(heard, answered):
        try:
            heard += connection.recv(4096)
        except SSL.WantReadError:
            try:
                if exchange(plain, connection, end):
                    return heard or _CLOSED
            except NotReached:
                break
        except SSL.Error:
            return heard or _CLOSED
    return heard


def try_all(found: list[Place]) -> list[Verdict]:
    """Try both ways at each listener address with STARTTLS."""
    return [inject(place, way) for place in found if place.listener.starttls for way in WAYS]
