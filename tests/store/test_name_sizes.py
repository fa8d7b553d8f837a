"""Sizes in file names are believed where a program counted them, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.maildir.format.filename import new_base
from mailserver.store.name_sizes import claimed_size, claimed_sizes
from mailserver.types import UNKNOWN_SIZE

OF_DOVECOT = b"1276528487.M364837P9451.kurkku"


@pytest.mark.parametrize(
    ("end", "size"),
    [
        (b",S=1355,W=1394", 1394),
        (b",S=697,W=1394", 1394),
        (b",S=696,W=1394", UNKNOWN_SIZE),  # more LFs than octets
        (b",S=1394,W=1394", UNKNOWN_SIZE),  # a copied number would be a message with bare LFs
        (b",S=1395,W=1394", UNKNOWN_SIZE),
        (b",W=1394", UNKNOWN_SIZE),
        (b",S=1355", UNKNOWN_SIZE),
        (b",S=1355,W=1394.host", UNKNOWN_SIZE),
        (b",W=1394,S=1355", UNKNOWN_SIZE),
        (b",S=1355,W=13_4", UNKNOWN_SIZE),
        (b",S=135500000000,W=139400000000", UNKNOWN_SIZE),
        (b"", UNKNOWN_SIZE),
    ],
)
def test_what_is_believed(end: bytes, size: int) -> None:
    assert claimed_size(OF_DOVECOT + end) == size
    assert list(claimed_sizes([OF_DOVECOT + end])) == [size]


def test_equal_sizes_are_believed_of_this_server_alone() -> None:
    assert claimed_size(new_base("h", size=7, virtual_size=7).encode()) == 7


ENDS = st.sampled_from(
    [b",S=10,W=12", b",S=5,W=5", b",S=9,W=11", b",S=,W=", b",S=1,S=1,W=1", b",W=2", b",S=0,W=0", b",S=2,W=3\n", b""]
)


@given(st.lists(st.tuples(st.binary(max_size=5), ENDS).map(b"".join), max_size=6))
def test_many_are_like_each(bases: list[bytes]) -> None:
    assert list(claimed_sizes(bases)) == [claimed_size(base) for base in bases]
