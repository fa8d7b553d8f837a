"""Modified UTF-7 (RFC 3501 5.1.3), and names between client and store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import BadMailboxName, NoSuchMailbox
from mailserver.imap.wire.mailbox_names import Namespace, decode_utf7, encode_utf7, is_inbox
from mailserver.types import SLASH

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(NAMES)
def test_names_read_back(name: str) -> None:
    written = encode_utf7(name)
    assert written.isascii()
    assert decode_utf7(written) == name


@given(st.binary(max_size=20))
def test_one_spelling_only(data: bytes) -> None:
    try:
        name = decode_utf7(data)
    except BadMailboxName:
        return
    assert encode_utf7(name) == data


def test_example_of_the_rfc() -> None:
    """RFC 3501 5.1.3."""
    assert decode_utf7(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-") == "~peter/mail/台北/日本語"
    assert encode_utf7("a&b") == b"a&-b"


@pytest.mark.parametrize(
    "data", [b"&Jjo!", b"&U,BTFw-&ZeVnLIqe-", b"&", b"&-&", b"&AGEAYg-", b"&AOQ", b"\xe4", b"&AOQA-", b"&AOR-"]
)
def test_refused(data: bytes) -> None:
    """The second is the RFC's own example: needless shifts, for &U,BTF2XlZyyKng-."""
    with pytest.raises(BadMailboxName):
        decode_utf7(data)


@pytest.mark.parametrize(
    ("separator", "prefix", "client", "store"),
    [
        ("/", "", "iNbOx", "INBOX"),
        ("/", "", "inbox/x", "INBOX/x"),
        ("/", "", "a/b", "a/b"),
        (".", "", "a.b", "a/b"),
        (".", "INBOX", "INBOX.Sent.x", "Sent/x"),
        (".", "INBOX.", "inbox.Sent", "Sent"),
        (".", "INBOX.", "INBOX.INBOX.x", "INBOX/x"),
        ("/", "Mail", "Mail/Sent", "Sent"),
        ("/", "Mail", "INBOX", "INBOX"),
    ],
)
def test_to_store(separator: str, prefix: str, client: str, store: str) -> None:
    assert Namespace.make(separator, prefix).to_store(client) == store


@pytest.mark.parametrize(
    ("separator", "prefix", "client", "error"),
    [
        (".", "", "a/b", BadMailboxName),
        (".", "INBOX.", "Sent", NoSuchMailbox),
        ("/", "Mail", "mail/Sent", NoSuchMailbox),
        ("/", "", "", BadMailboxName),
        (".", "INBOX.", "INBOX.", BadMailboxName),
        (".", "INBOX.", "INBOX.INBOX", BadMailboxName),
        (".", "INBOX.", "inbox.inbox", BadMailboxName),
        ("/", "Mail", "Mail/Inbox", BadMailboxName),
    ],
)
def test_to_store_refuses(separator: str, prefix: str, client: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Namespace.make(separator, prefix).to_store(client)


@pytest.mark.parametrize(
    ("separator", "client", "store"),
    [(".", "a/b.c", f"a{SLASH}b/c"), (".", "INBOX.x/", f"INBOX/x{SLASH}"), ("/", "a.b/c", "a.b/c")],
)
def test_a_slash_in_a_level(separator: str, client: str, store: str) -> None:
    namespace = Namespace.make(separator, "", slashes=True)
    assert namespace.to_store(client) == store
    assert namespace.to_client(store) == client
    with pytest.raises(BadMailboxName):
        # Else two names would lead to one place.
        namespace.to_store(client.replace("/", SLASH) + SLASH)


LEVELS = st.text("abc.é", min_size=1, max_size=4)


@given(st.lists(LEVELS, min_size=1, max_size=3), st.sampled_from(["/", "."]), st.sampled_from(["", "INBOX", "Mail"]))
def test_both_ways(levels: list[str], separator: str, prefix: str) -> None:
    namespace = Namespace.make(separator, prefix)
    name = "/".join(level.replace(separator, "-") for level in levels)
    assert namespace.to_store(namespace.to_client(name)) == name


@pytest.mark.parametrize("name", ["ınbox", "INBOX\u200b", "ＩＮＢＯＸ", "İNBOX"])
def test_inbox_has_the_letters_of_ascii_alone(name: str) -> None:
    """RFC 3501 5.1. Python's capital of a dotless i is I."""
    assert not is_inbox(name)
    assert Namespace.make("/", "").to_store(name) == name
    assert Namespace.make("/", "").to_store(f"{name}/a") == f"{name}/a"
    with pytest.raises(NoSuchMailbox):
        Namespace.make("/", "INBOX").to_store(f"{name}/a")
    assert Namespace.make("/", "INBOX").to_store("iNbOx/a") == "a"
