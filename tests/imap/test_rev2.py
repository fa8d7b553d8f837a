"""IMAP4rev2 beside IMAP4rev1 (RFC 9051 Appendix A)."""

from __future__ import annotations

from tests.imap.sessions import logged_in, put, selected, services

REV2 = b"x ENABLE IMAP4REV2\r\n"


def test_sessions_that_enable_it_leave_recent_messages_to_others() -> None:
    service = services()
    new = logged_in(service)
    assert new.ask(REV2) == b"* ENABLED IMAP4rev2\r\nx OK ENABLE completed\r\n"
    put(new)
    assert b"RECENT" not in new.ask(b"a SELECT INBOX\r\n")
    answer = put(new)
    assert b"* 2 EXISTS\r\n" in answer
    assert b"RECENT" not in answer
    assert b"\\Recent" not in new.ask(b"a FETCH 1:* FLAGS\r\n")
    old = logged_in(service)
    assert b"* 2 RECENT\r\n" in old.ask(b"a SELECT INBOX\r\n")
    assert old.ask(b"a FETCH 1:* FLAGS\r\n").count(b"\\Recent") == 2


def test_it_can_be_enabled_with_a_mailbox_selected() -> None:
    service = services()
    client = selected(service, messages=2)
    assert b"ENABLED IMAP4rev2" in client.ask(REV2)
    assert client.ask(b"a SEARCH ALL\r\n") == b'* ESEARCH (TAG "a") ALL 1:2\r\na OK SEARCH completed\r\n'
    put(logged_in(service))
    answer = client.ask(b"a NOOP\r\n")
    assert b"* 3 EXISTS\r\n" in answer
    assert b"RECENT" not in answer


def test_select_tells_the_attributes_of_the_mailbox() -> None:
    client = logged_in(services())
    client.ask(REV2)
    client.ask(b"a CREATE x/y (USE (\\Sent))\r\n")
    assert b'* LIST (\\HasChildren) "/" "x"\r\n' in client.ask(b"a CREATE x\r\n") + client.ask(b"a EXAMINE x\r\n")
    assert b'* LIST (\\HasNoChildren \\Sent) "/" "x/y"\r\n' in client.ask(b"a SELECT x/y\r\n")
    answer = client.ask(b"a SELECT nowhere\r\n")
    assert answer.endswith(b"a NO [NONEXISTENT] no such mailbox\r\n")
    assert b"LIST" not in answer


def test_a_saved_result_is_not_written() -> None:
    client = selected(services(), messages=2)
    client.ask(REV2)
    assert client.ask(b"a SEARCH RETURN (SAVE) ALL\r\n") == b"a OK SEARCH completed\r\n"
    assert client.ask(b"a SEARCH CHARSET UTF-8 NOT $\r\n") == b'* ESEARCH (TAG "a")\r\na OK SEARCH completed\r\n'


def test_others_are_served_as_before() -> None:
    client = selected(services(), messages=1)
    assert client.ask(b"a SEARCH ALL\r\n") == b"* SEARCH 1\r\na OK SEARCH completed\r\n"
    answer = client.ask(b"a SELECT INBOX\r\n")
    assert b"* 0 RECENT\r\n" in answer
    assert b"* OK [UNSEEN 1]" in answer
    assert b"LIST" not in answer
