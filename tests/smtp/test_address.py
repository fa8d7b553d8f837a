from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import BadSyntax, MailError
from mailserver.smtp.address import (
    Address,
    BadRecipient,
    BadSender,
    NotASCII,
    is_auth_parameter,
    is_hello_name,
    parse_address,
    parse_mail,
    parse_rcpt,
)


@pytest.mark.parametrize(
    ("text", "local", "domain", "written"),
    [
        (b"<anna@example.test>", "anna", "example.test", "anna@example.test"),
        (b" <Anna@Example.TEST>", "Anna", "Example.TEST", "Anna@Example.TEST"),
        (b"<a.b+c=d@example.test>", "a.b+c=d", "example.test", "a.b+c=d@example.test"),
        (b'<"a b"@example.test>', "a b", "example.test", '"a b"@example.test'),
        (b'<"a\\"b"@example.test>', 'a"b', "example.test", '"a\\"b"@example.test'),
        (b'<"a>b"@example.test>', "a>b", "example.test", '"a>b"@example.test'),
        (b'<"anna"@example.test>', "anna", "example.test", "anna@example.test"),
        (b"<@relay.example.net,@b.example.net:anna@example.test>", "anna", "example.test", "anna@example.test"),
        (b"<anna@[192.0.2.1]>", "anna", "[192.0.2.1]", "anna@[192.0.2.1]"),
        (b"<anna@[IPv6:2001:db8::1]>", "anna", "[IPv6:2001:db8::1]", "anna@[IPv6:2001:db8::1]"),
        (b"<anna@my_host.example.test>", "anna", "my_host.example.test", "anna@my_host.example.test"),
        (b"<postmaster>", "postmaster", "", "postmaster"),
    ],
)
def test_paths(text: bytes, local: str, domain: str, written: str) -> None:
    address = parse_rcpt(b"TO:" + text).address
    assert address == Address(local, domain)
    assert str(address) == written
    assert parse_mail(b"from:" + text).address == address


@pytest.mark.parametrize(
    "text",
    [
        b"anna@example.test", b"<anna@example.test", b"<anna@>", b"<@example.test>", b"<a..b@example.test>",
        b"<.a@example.test>", b"<a.@example.test>", b"<a b@example.test>", b"<a@b@example.test>", b"<a@-example.test>",
        b"<a@example-.test>", b"<a@example..test>", b"<a@example.test.>", b"<a@[192.0.2.999]>", b"<a@[x]>",
        b'<"a@example.test>', b'<""@example.test>', b"<" + b"x" * 65 + b"@example.test>",
        b"<a@" + b"x." * 130 + b"test>", b"", b"<", b"< >", b"<a(comment)@example.test>",
        b"<" + b"x" * 60 + b"@" + b"x." * 100 + b"test>",
    ],
)  # fmt: skip
def test_what_is_no_path(text: bytes) -> None:
    with pytest.raises(BadSender):
        parse_mail(b"FROM:" + text)
    with pytest.raises(BadRecipient):
        parse_rcpt(b"TO:" + text)


def test_the_null_path() -> None:
    assert parse_mail(b"FROM:<>").address is None
    with pytest.raises(BadRecipient):
        parse_rcpt(b"TO:<>")


def test_parameters() -> None:
    command = parse_mail(b"FROM:<a@example.test> SIZE=10  body=8bitmime X")
    assert command.parameters == {"SIZE": "10", "BODY": "8bitmime", "X": None}


@pytest.mark.parametrize(
    "text", [b"<a@b.test>SIZE=1", b"<a@b.test> SIZE=1 SIZE=2", b"<a@b.test> =1", b"<a@b.test> A=", b"<a@b.test> A=b=c"]
)
def test_wrong_parameters(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        parse_mail(b"FROM:" + text)


def test_addresses_in_utf8() -> None:
    path = parse_rcpt("TO:<jürgen@bücher.example> X".encode())
    assert path.address == Address("jürgen", "xn--bcher-kva.example")
    assert (path.is_ascii, path.address.is_ascii, path.parameters) == (False, False, {"X": None})
    quoted = parse_mail('FROM:<"jü gen"@example.test>'.encode()).address
    assert str(quoted) == '"jü gen"@example.test'
    only_domain = parse_mail("FROM:<a@BÜCHER.example>".encode()).address
    assert only_domain == Address("a", "xn--bcher-kva.example")
    assert only_domain.is_ascii
    assert Address("ju\u0308rgen", "example.test").key == "jürgen@example.test"
    with pytest.raises(NotASCII):
        parse_rcpt("TO:<jürgen@example.test>".encode("latin-1"))


@pytest.mark.parametrize(
    "address",
    [
        "ü" * 33 + "@a.test",
        "a@-ü-.test",
        "a@ü..test",
        "a\u0085b@a.test",
        "a@" + "ü" * 256,
        "@ü.test",
        "@" + ".".join(["ü" * 60] * 3) + ":a@b.test",
    ],
)
def test_what_is_no_address_in_utf8(address: str) -> None:
    with pytest.raises(BadRecipient):
        parse_rcpt(f"TO:<{address}>".encode())


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_nothing_else_is_raised(text: bytes) -> None:
    for whole in (text, b"FROM:<" + text + b">"):
        try:
            command = parse_mail(whole)
        except MailError:
            continue
        if command.address and command.address.domain:
            assert parse_address(str(command.address)) == command.address


def test_addresses_alone() -> None:
    assert parse_address("anna@example.test") == Address("anna", "example.test")
    for text in ("anna", "", "anna@example.test>", "anna@example.test> <x@y.test", "a@b.test\n"):
        assert parse_address(text) is None


@pytest.mark.parametrize("name", ["localhost", "mail.example.test", "[192.0.2.1]", "[IPv6:::1]", "my_pc"])
def test_hello_names(name: str) -> None:
    assert is_hello_name(name)


@pytest.mark.parametrize("name", ["", "a b", "[300.1.1.1]", "x" * 256, "a..b", "-", "a\r", "héllo"])
def test_what_is_no_hello_name(name: str) -> None:
    assert not is_hello_name(name)


def test_auth_parameters() -> None:
    assert is_auth_parameter("<>")
    assert is_auth_parameter("e+3Dmc2@example.test")
    for value in (None, "a+3dc", "a+", "a b"):
        assert not is_auth_parameter(value)
