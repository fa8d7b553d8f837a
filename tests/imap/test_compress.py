"""COMPRESS (RFC 4978): what comes behind the command, corrupt and endless input, and what hides it."""

from __future__ import annotations

import zlib

import pytest

from tests.fakes import Client
from tests.imap.sessions import connect, logged_in, services
from tests.test_deflate import EMPTY_BLOCK, deflated


class Compressed:
    """A client on whose connection COMPRESS is active."""

    def __init__(self, client: Client | None = None) -> None:
        self.client = client or logged_in(services())
        assert self.client.ask(b"c COMPRESS DEFLATE\r\n") == b"c OK DEFLATE active\r\n"
        self.deflater, self.inflater = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)

    def deflate(self, data: bytes) -> bytes:
        return self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)

    def ask(self, data: bytes) -> bytes:
        self.client.send(self.deflate(data))
        return self.take()

    def take(self) -> bytes:
        return self.inflater.decompress(self.client.take())


def test_the_ok_is_plain_and_all_behind_it_is_compressed() -> None:
    client = Compressed()
    assert client.ask(b"a NOOP\r\nb NOOP\r\n") == b"a OK NOOP completed\r\nb OK NOOP completed\r\n"
    assert client.client.channel.compressed
    assert ("compress", {"user": "anna@example.test"}) in client.client.channel.logged


def test_octets_behind_the_command_leave_the_connection_as_it_is() -> None:
    client = logged_in(services())
    answer = client.ask(b"a COMPRESS DEFLATE\r\nb NOOP\r\n")
    assert answer.startswith(b"a BAD ")
    assert answer.endswith(b"b OK NOOP completed\r\n")
    Compressed(client)


def test_where_it_is_switched_off_it_is_neither_listed_nor_done() -> None:
    client = logged_in(services(imap={"compress": False}))
    assert b"COMPRESS" not in client.ask(b"a CAPABILITY\r\n")
    assert client.ask(b"b COMPRESS DEFLATE\r\n").startswith(b"b NO [CANNOT] ")


def test_it_is_listed_once_logged_in_and_while_it_is_not_active() -> None:
    plain = connect(services())
    assert b"COMPRESS" not in plain.take() + plain.ask(b"a CAPABILITY\r\n")
    client = logged_in(services())
    assert b" COMPRESS=DEFLATE" in client.ask(b"a CAPABILITY\r\n")
    assert b"COMPRESS" not in Compressed(client).ask(b"a CAPABILITY\r\n")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"a NOOP\r\n", b"corrupt"),
        (b"\xff" * 20, b"corrupt"),
        (deflated(b"a NOOP\r\n", flush=zlib.Z_FINISH), b"ended"),
        (EMPTY_BLOCK * 14_000, b"nothing"),
    ],
)
@pytest.mark.parametrize("within", [b"", b"i IDLE\r\n", b"p APPEND INBOX {1000}\r\nFrom: x", b"l LIST {1000+}\r\nx"])
def test_what_cannot_be_decompressed_ends_the_session_with_bye(octets: bytes, reason: bytes, within: bytes) -> None:
    client = Compressed()
    if within:
        client.client.send(client.deflate(within))
    client.client.send(octets)
    assert client.client.done
    said = client.take()
    assert said.split(b"\r\n")[-2].startswith(b"* BYE ")
    assert reason in said
    assert any(event == "connection-cut" for event, _ in client.client.channel.logged)


def test_a_stream_that_is_cut_off_at_any_octet_ends_the_session() -> None:
    message = b"From: x@example.test\r\n\r\ntext\r\n"
    octets = deflated(b"a NOOP\r\np APPEND INBOX {%d+}\r\n%b\r\nb NOOP\r\n" % (len(message), message))
    service = services()
    for end in range(len(octets)):
        client = Compressed(logged_in(service))
        client.client.send(octets[:end])
        client.client.hang_up()
        assert client.client.done


def test_a_bomb_meets_the_limits_of_any_client() -> None:
    client = Compressed()
    client.client.send(deflated(b"a NOOP " + b"x" * 50_000_000))
    assert client.client.done
    assert client.take().endswith(b"* BYE more data was sent than can be discarded\r\n")
    assert client.client.channel.deflate is not None
    assert client.client.channel.deflate.unread > 40_000, "what nobody wants is not decompressed"


def test_a_bomb_of_a_message_is_refused_by_its_size() -> None:
    client = Compressed(logged_in(services(mail={"max_message_size": 1_000_000})))
    assert client.ask(b"a APPEND INBOX {2000000}\r\n").startswith(b"a NO [TOOBIG] ")
    assert client.ask(b"b NOOP\r\n") == b"b OK NOOP completed\r\n"
