from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.model import Auth, Config, Mail, Pop3, Server
from mailserver.pop3.uidl import check, parse_uidl_format
from mailserver.store.interfaces import Pop3Record


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%08Xu%08Xv", "0000002a5f3b1c00"),  # Dovecot's default
        ("%v-%u", "1597709312-42"),
        ("%u.%v", "42.1597709312"),
        ("UID%u", "UID42"),
        ("%05u%%", "00042%"),
        ("%Xv%Xu", "5f3b1c002a"),
        ("%f", "name"),
        ("%u-%g", "42-guid"),
        ("%{uid | hex(8)}%{uidvalidity | hex(8)}", "0000002a5f3b1c00"),
        ("%{uid|hex}.%{ filename }.%{guid}", "2a.name.guid"),
        ("%{uidvalidity}-%{uid}", "1597709312-42"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert parse_uidl_format(text)(0x5F3B1C00, 42, Pop3Record(name="name", guid="guid")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%v",
        "%m",
        "%{uidvalidity}",
        "%{md5}%{uid}",
        "%{filename | hex}",
        "%{uid}%%",
        "%u %v",
        "%u%",
        "%099u",
        "%u" + "x" * 70,
        "%uä",
        "%u\n",
    ],
)
def test_what_no_unique_id_can_be(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_uidl_format(text)


def test_a_message_without_a_name_has_an_id_all_the_same() -> None:
    assert parse_uidl_format("%f")(7, 42) == parse_uidl_format("%{guid}")(7, 42) == "42.7"
    assert parse_uidl_format("%g")(7, 42, Pop3Record(name="name")) == "name"


def test_numbers_are_never_cut() -> None:
    unique = parse_uidl_format("%04Xu")
    assert unique(1, 0x12345) != unique(1, 0x2345)


@pytest.mark.parametrize(("text", "problems"), [("%u", 0), ("%v", 1), ("%099u", 1), ("%u" * 10, 1)])
def test_the_configured_format_is_checked(text: str, problems: int) -> None:
    config = Config(
        Server(hostname="mail.example.test"),
        Mail(root=Path("/")),
        Auth(backends=()),
        (),
        (),
        pop3=Pop3(uidl_format=text),
    )
    found = check(config)
    assert [problem.place for problem in found] == ["[pop3] uidl_format"] * problems
