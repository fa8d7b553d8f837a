"""Both directions of COMPRESS=DEFLATE: windows of any size, rests, bombs, streams that are cut off or corrupt."""

from __future__ import annotations

import random
import zlib

import pytest

from mailserver.session.channel import CorruptInput
from mailserver.session.deflate import AT_ONCE, MOST_EMPTY, DeflateStream

EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
"""A stored block without octets (RFC 1951 3.2.4)."""


def deflated(data: bytes, *, flush: int = zlib.Z_SYNC_FLUSH, wbits: int = -15, level: int = 6) -> bytes:
    deflater = zlib.compressobj(level, wbits=wbits)
    return deflater.compress(data) + deflater.flush(flush)


def read_all(stream: DeflateStream) -> bytes:
    data = b""
    while piece := stream.read():
        assert len(piece) <= AT_ONCE
        data += piece
    return data


@pytest.mark.parametrize("wbits", [-9, -12, -15])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("size", [1, 10, 10_000])
def test_what_any_compressor_sends_is_read_in_any_pieces(wbits: int, level: int, size: int) -> None:
    data = b"".join(b"a%d UID FETCH %d (FLAGS)\r\n" % (number, number) for number in range(2000)) + random.randbytes(
        70_000
    )
    octets, stream, found = deflated(data, wbits=wbits, level=level), DeflateStream(), b""
    for at in range(0, len(octets), size):
        stream.feed(octets[at : at + size])
        found += read_all(stream)
    assert found == data


def test_each_flush_can_be_read_at_once_also_after_a_rest() -> None:
    stream, inflater = DeflateStream(), zlib.decompressobj(-15)
    for number in range(50):
        text = b"* %d FETCH (FLAGS (\\Seen))\r\n" % number * (number % 7)
        if text:
            assert inflater.decompress(stream.compress(text)) == text
        if number % 5 == 0:
            stream.rest()
    assert not inflater.eof


def test_a_bomb_is_read_a_piece_at_a_time_and_the_rest_stays_compressed() -> None:
    bomb = deflated(bytes(50_000_000))
    assert len(bomb) < 65_536
    stream = DeflateStream()
    stream.feed(bomb)
    for _ in range(100):
        assert len(stream.read()) == AT_ONCE
    assert stream.unread > len(bomb) * 0.9


def test_empty_blocks_end_it_only_where_nothing_comes_between_them() -> None:
    stream = DeflateStream()
    for _ in range(3 * MOST_EMPTY // (1000 * len(EMPTY_BLOCK))):
        stream.feed(EMPTY_BLOCK * 1000 + deflated(b"x"))
        assert read_all(stream) == b"x"
    for _ in range(MOST_EMPTY // len(EMPTY_BLOCK)):
        stream.feed(EMPTY_BLOCK)
        assert not stream.read()
    stream.feed(EMPTY_BLOCK)
    with pytest.raises(CorruptInput, match="nothing"):
        stream.read()


@pytest.mark.parametrize("behind", [b"", b"a NOOP\r\n"])
def test_after_the_last_block_nothing_is_read(behind: bytes) -> None:
    stream = DeflateStream()
    stream.feed(deflated(b"a NOOP\r\n", flush=zlib.Z_FINISH) + behind)
    assert stream.read() == b"a NOOP\r\n"
    with pytest.raises(CorruptInput, match="ended"):
        stream.read()


def test_corrupt_octets_are_noticed_or_are_octets_of_a_bounded_number() -> None:
    source = random.Random(1)
    octets = deflated(b"a UID FETCH 1:* (FLAGS)\r\n" * 100)
    corrupt = 0
    for _ in range(2000):
        changed = bytearray(octets)
        for _change in range(source.randint(1, 4)):
            changed[source.randrange(len(changed))] = source.randrange(256)
        stream = DeflateStream()
        stream.feed(bytes(changed))
        try:
            read_all(stream)
        except CorruptInput:
            corrupt += 1
    assert corrupt > 500


def test_a_stream_that_is_cut_off_anywhere_gives_a_beginning() -> None:
    data = b"a NOOP\r\nb FETCH 1 FLAGS\r\n"
    octets = deflated(data)
    for end in range(len(octets)):
        stream = DeflateStream()
        stream.feed(octets[:end])
        assert data.startswith(read_all(stream))
