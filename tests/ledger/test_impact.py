"""Who would be shut out by a change."""

from __future__ import annotations

from mailserver.ledger.entry import SeenEntry
from mailserver.ledger.impact import GONE, Change, affected, close_port, drop_mechanism, drop_name, minimum_version
from tests.ledger.entries import seen


def judged(change: Change, *ways: SeenEntry) -> list[tuple[str, str, bool]]:
    return [(each.seen.entry.account, each.seen.entry.program, each.breaks) for each in affected(ways, change)]


def test_minimum_version() -> None:
    old = seen(account="bert", program="Old", version="TLSv1.2")
    bare = seen(account="carl", tls="none", version="")
    assert judged(minimum_version("1.3"), seen(), old, bare) == [("bert", "Old", True)]
    assert judged(minimum_version("1.2"), seen(), old, bare) == []


def test_a_client_that_goes_another_way_since_is_not_lost() -> None:
    before, after = seen(0, version="TLSv1.2"), seen(GONE, version="TLSv1.3")
    assert judged(minimum_version("1.3"), before, after) == [("anna@example.test", "Thunderbird 128.0", False)]
    # Two devices of a kind, perhaps.
    before, after = seen(0, version="TLSv1.2"), seen(GONE - 1, version="TLSv1.3")
    assert judged(minimum_version("1.3"), before, after) == [("anna@example.test", "Thunderbird 128.0", True)]
    # It has gone back: that way is the one it knows now.
    before, after = seen(GONE, version="TLSv1.2"), seen(0, version="TLSv1.3")
    assert judged(minimum_version("1.3"), before, after) == [("anna@example.test", "Thunderbird 128.0", True)]


def test_another_program_or_service_does_not_help() -> None:
    old = seen(0, version="TLSv1.2")
    assert judged(minimum_version("1.3"), old, seen(GONE, program="K-9 6.8"))[0][2]
    assert judged(minimum_version("1.3"), old, seen(GONE, protocol="submissions", port=465))[0][2]
    assert not judged(minimum_version("1.3"), old, seen(GONE, protocol="imap", port=143, tls="STARTTLS"))[0][2]
    assert judged(minimum_version("1.3"), old, seen(GONE, account="bert"))[0][2]


def test_close_port() -> None:
    starttls = seen(protocol="imap", port=143, tls="STARTTLS", account="bert")
    assert judged(close_port(143), seen(), starttls) == [("bert", "Thunderbird 128.0", True)]
    assert judged(close_port(110), seen(), starttls) == []


def test_drop_name() -> None:
    old = seen(server_name="old.example.test", account="bert")
    deeper = seen(server_name="a.b.example.test", account="carl")
    assert judged(drop_name("OLD.example.test."), seen(), old) == [("bert", "Thunderbird 128.0", True)]
    assert {each[0] for each in judged(drop_name("*.example.test"), seen(), old, deeper)} == {
        "anna@example.test",
        "bert",
    }


def test_what_another_name_covers_stays() -> None:
    ours, new = seen(server_name="mail.example.test"), seen(server_name="new.example.test", account="bert")
    assert judged(drop_name("*.example.test", ["mail.example.test"]), ours, new) == [
        ("bert", "Thunderbird 128.0", True)
    ]
    assert judged(drop_name("mail.example.test", ["*.example.test"]), ours, new) == []
    assert judged(drop_name("mail.example.test", ["*.test"]), ours, new) == [
        ("anna@example.test", "Thunderbird 128.0", True)
    ]


def test_drop_mechanism() -> None:
    scram = seen(mechanism="SCRAM-SHA-256", account="bert")
    assert judged(drop_mechanism("plain"), seen(), scram) == [("anna@example.test", "Thunderbird 128.0", True)]


def test_who_is_lost_for_sure_comes_first() -> None:
    found = judged(
        close_port(993),
        seen(0, account="anna"),
        seen(GONE, account="anna", port=143, protocol="imap"),
        seen(100, account="zoe"),
    )
    assert found == [("zoe", "Thunderbird 128.0", True), ("anna", "Thunderbird 128.0", False)]


def test_a_mechanism_is_dropped_for_delegates_too() -> None:
    delegated = seen(mechanism="PLAIN by admin@example.test", account="bert")
    assert judged(drop_mechanism("plain"), delegated, seen(mechanism="LOGIN")) == [("bert", "Thunderbird 128.0", True)]
