from __future__ import annotations

import pytest

from mailserver.pop3.uidl import parse_uidl_format


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%08Xu%08Xv", "0000002a5f3b1c00"),  # Dovecot's default
        ("%v-%u", "1597709312-42"),
        ("%u.%v", "42.1597709312"),
        ("UID%u", "UID42"),
        ("%05u%%", "00042%"),
        ("%Xv%Xu", "5f3b1c002a"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert parse_uidl_format(text)(0x5F3B1C00, 42) == expected


@pytest.mark.parametrize("text", ["", "%v", "%f", "%u %v", "%u%", "%099u", "%u" + "x" * 70, "%uä", "%u\n"])
def test_what_no_unique_id_can_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_uidl_format(text)


def test_numbers_are_never_cut() -> None:
    unique = parse_uidl_format("%04Xu")
    assert unique(1, 0x12345) != unique(1, 0x2345)
