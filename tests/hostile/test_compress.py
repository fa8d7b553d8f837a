"""Deflate bombs: a few kilobytes that become very many octets. Another client is answered meanwhile (`conftest.Watcher`)."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.deflated import DeflatedSocket
from tests.hostile.wire import Client, log_in
from tests.server import Server


class Bomber:
    """A client that compresses, and may send octets that are compressed already."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.below = client.socket
        client.socket = cast("Any", DeflatedSocket(client.socket))
        self._deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)

    def send(self, first: bytes, repeated: bytes, times: int, last: bytes = b"") -> None:
        """Send a thousand times fewer octets than these."""
        octets, block = self._deflater.compress(first), repeated * 1000
        for _ in range(times // 1000):
            octets += self._deflater.compress(block)
        octets += self._deflater.compress(last) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        assert len(octets) < max(1000, len(repeated) * times / 100)
        with contextlib.suppress(OSError):  # it may have been cut meanwhile
            self.below.sendall(octets)


@pytest.fixture
def bomber(server: Server, mail_user: str) -> Iterator[Bomber]:
    with log_in(server, "imaps", mail_user) as client:
        assert client.command(b"COMPRESS DEFLATE")[-1].startswith(b"OK")
        yield Bomber(client)


def test_a_line_of_a_hundred_megabytes(bomber: Bomber) -> None:
    bomber.send(b"a NOOP ", b"x", 100_000_000)
    assert b"* BYE more data was sent than can be discarded" in bomber.client.to_the_end()


def test_a_literal_of_a_hundred_megabytes(bomber: Bomber) -> None:
    bomber.send(b"a APPEND INBOX {1000000000+}\r\n", b"x", 100_000_000)
    assert b"a NO [TOOBIG]" in bomber.client.to_the_end()


def test_messages_as_large_as_may_be(bomber: Bomber) -> None:
    size = 16_000_000
    for _ in range(3):
        bomber.send(b"a APPEND INBOX {%d+}\r\n\r\n" % (size + 2), b"x", size, b"\r\n")
        assert bomber.client.reply().startswith(b"a OK")


def test_a_hundred_thousand_commands(bomber: Bomber) -> None:
    bomber.send(b"", b"a NOOP\r\n", 100_000, b"z LOGOUT\r\n")
    assert b"z OK LOGOUT" in bomber.client.to_the_end()[-100:]


def test_millions_of_commands_whose_answers_are_not_read(bomber: Bomber) -> None:
    bomber.send(b"", b"a UID FETCH 1:* (FLAGS)\r\n", 2_000_000)


def test_empty_blocks_without_end(bomber: Bomber) -> None:
    bomber.below.sendall(b"\x00\x00\x00\xff\xff" * 20_000)
    assert b"* BYE the compressed data decompresses to nothing" in bomber.client.to_the_end()
