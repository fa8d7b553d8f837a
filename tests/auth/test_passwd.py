"""Lines of Dovecot's passwd-file format."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.auth.schemes.passwd import MAX_NAME, BadLine, BadName, name_of, normalise, parse_line


def test_all_fields() -> None:
    # The example of Dovecot's documentation of passwd-file, with a scheme.
    entry = parse_line("Joe@Example.test:{PLAIN}pass:1000:1000:Joe:/home/joe::userdb_mail=maildir:~/Maildir nologin")
    assert entry.name == "joe@example.test"
    assert entry.stored == "{PLAIN}pass"
    assert entry.home == "/home/joe"
    assert entry.disabled
    assert entry.extra == {"userdb_mail": "maildir:~/Maildir", "nologin": ""}


def test_fields_may_be_missing() -> None:
    entry = parse_line("joe:{PLAIN}pass")
    assert (entry.name, entry.stored, entry.home, entry.disabled) == ("joe", "{PLAIN}pass", "", False)


@pytest.mark.parametrize(
    ("line", "disabled", "stored"),
    [
        ("joe:!{PLAIN}pass", True, "{PLAIN}pass"),
        ("joe:!", True, ""),
        ("joe:", False, ""),
        ("joe:{PLAIN}p:::::: nologin=y", True, "{PLAIN}p"),
        ("joe:{PLAIN}p::::::userdb_nologin", False, "{PLAIN}p"),
    ],
)
def test_disabled_users(line: str, disabled: bool, stored: str) -> None:
    entry = parse_line(line)
    assert (entry.disabled, entry.stored) == (disabled, stored)


def test_addresses() -> None:
    entry = parse_line("joe:x::::::userdb_addresses=Sales@Example.test,info@example.test other=1")
    assert entry.addresses == {"sales@example.test", "info@example.test"}


@pytest.mark.parametrize("line", ["", "\n", "   ", "# joe:x", "#"])
def test_lines_that_name_nobody(line: str) -> None:
    assert name_of(line) is None


def test_a_line_without_a_password_field() -> None:
    with pytest.raises(BadLine):
        parse_line("joe")


def test_names_have_one_spelling() -> None:
    assert normalise("Anna@Example.TEST") == "anna@example.test"
    # U+0041 U+030A composes to U+00C5, whose lower case is U+00E5 (RFC 8265 3.3: case mapping and NFC).
    assert normalise("A\u030asa@example.test") == normalise("Åsa@example.test") == "åsa@example.test"
    # A domain is the one of the configuration, however it is typed (RFC 5891 5.2).
    assert (
        normalise("Anna@B\u00dccher.Example") == normalise("anna@xn--bcher-kva.example") == "anna@xn--bcher-kva.example"
    )
    # Neither is a name of hosts.
    assert normalise("anna@-\u00fc-.example") == "anna@-\u00fc-.example"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\x7fb",
        "a\x85b",
        "a b",
        "a\u00a0b",
        "a\u200bb",
        "a\u202eb",
        "a\u2028b",
        "a:b",
        "a/b",
        "../../etc@example.test",
        "..",
        ".",
        "..@example.test",
        "anna@..",
        "@example.test",
        "anna@",
        "a@b@c",
        "x" * (MAX_NAME + 1),
        "ä" * 128,
        "a\udc80b",
    ],
)
def test_names_that_nobody_can_have(name: str) -> None:
    with pytest.raises(BadName):
        normalise(name)


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_normalising_twice_changes_nothing(name: str) -> None:
    try:
        once = normalise(name)
    except BadName:
        return
    assert normalise(once) == once
    assert once.isprintable()
    assert not set(once) & set(" :/\0\n")


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_any_line_is_an_entry_or_refused(text: str) -> None:
    if name_of(text) is None:
        return
    try:
        entry = parse_line(text)
    except (BadLine, BadName):
        return
    assert entry.name
