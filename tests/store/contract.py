"""What every store must do, whatever it keeps mail in. Subclasses give `make_store`; each call opens the same mail.

Expectations are those of store/interfaces.py and of RFC 3501, 4315, 6851, 7162, 6154 and 3502; nothing here knows
how a store works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from mailserver.errors import (
    BadMailboxName,
    Cannot,
    LimitReached,
    MailboxChanged,
    MailboxExists,
    MailboxHasChildren,
    MessageExpunged,
    NoSuchMailbox,
)
from mailserver.message.render import summarise
from mailserver.store.columns import Columns
from mailserver.store.interfaces import (
    ANSWERED,
    DELETED,
    DRAFT,
    FLAGGED,
    KEYWORD_BIT,
    MAX_KEYWORDS,
    SEEN,
    SYSTEM_FLAGS,
    Account,
    All,
    And,
    Body,
    ChangedSince,
    FlagChange,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Mailbox,
    NewMessage,
    Not,
    Or,
    Received,
    Row,
    Sent,
    Smaller,
    Store,
    Text,
)
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE, ModSeq

USER = "anna@example.test"
DATE = 1_000_000_000  # 2001-09-09, day 11574
DAY = 11574
ADD, REMOVE, REPLACE = FlagChange.ADD, FlagChange.REMOVE, FlagChange.REPLACE


def message(subject: str = "hello", body: str = "Some text.") -> bytes:
    return (
        f"From: Anna <anna@example.test>\r\nTo: bert@example.org\r\nSubject: {subject}\r\n"
        f"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\nMessage-ID: <{subject}@example.test>\r\nX-Odd: strange {subject}\r\n"
        f"\r\n{body}\r\n"
    ).encode()


def staged(account: Account, data: bytes, flags: Iterable[str] = (), date: int | None = DATE) -> NewMessage:
    stage = account.stage()
    # In pieces, as a network brings them.
    for at in range(0, len(data), 50):
        stage.write(data[at : at + 50])
    assert stage.size == len(data)
    return NewMessage(stage, frozenset(flags), date)


def put(account: Account, name: str = "INBOX", data: bytes | None = None, flags: Iterable[str] = ()) -> UID:
    """Append one message."""
    appended = account.append(name, [staged(account, message() if data is None else data, flags)])
    [uid] = appended.uids
    return uid


def names(account: Account) -> dict[str, bool]:
    """Name -> is it selectable?"""
    return {info.name: info.id is not None for info in account.mailboxes()}


def uids(mailbox: Mailbox) -> list[int]:
    return [row.uid for row in mailbox.load().rows]


def flags(mailbox: Mailbox) -> dict[int, set[str]]:
    """UID -> flags by name, keywords in lower case."""
    snapshot = mailbox.load()
    bits = {**SYSTEM_FLAGS, **{word.lower(): 1 << KEYWORD_BIT + n for n, word in enumerate(snapshot.keywords)}}
    return {row.uid: {name for name, bit in bits.items() if row.flags & bit} for row in snapshot.rows}


def content(mailbox: Mailbox, uid: int) -> bytes:
    opened = mailbox.open_message(UID(uid))
    try:
        data = opened.read()
        assert opened.size == len(data)
        return data
    finally:
        opened.close()


class StoreContract:
    """Inherit, name the class Test..., and give the fixture."""

    @pytest.fixture
    def make_store(self) -> Callable[[], Store]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, make_store):
        return make_store()

    @pytest.fixture
    def account(self, store):
        account = store.account(USER)
        yield account
        account.close()

    @pytest.fixture
    def inbox(self, account):
        return account.mailbox("INBOX")

    @pytest.fixture
    def three(self, account, inbox):
        """An INBOX with three messages."""
        appended = account.append("INBOX", [staged(account, message(word)) for word in ("one", "two", "three")])
        assert list(appended.uids) == uids(inbox)
        return list(appended.uids)

    # --- names

    def test_a_new_account_has_inbox(self, account):
        assert names(account)["INBOX"] is True
        assert account.mailboxes()[0].name == "INBOX"
        assert account.mailbox("INBOX").name == "INBOX"
        assert account.user == USER

    def test_inbox_in_any_case(self, account):
        assert account.mailbox("inbox").id == account.mailbox("INBOX").id
        with pytest.raises(MailboxExists):
            account.create("InBox")

    def test_create_makes_the_mailbox_and_its_parents(self, account):
        id_ = account.create("a/b/c")
        assert {name: kind for name, kind in names(account).items() if name[0] == "a"} == {
            "a": True,
            "a/b": True,
            "a/b/c": True,
        }
        assert account.mailbox("a/b/c").id == id_
        assert len(id_) == 16
        assert len({info.id for info in account.mailboxes()}) == len(account.mailboxes())

    def test_names_are_sorted_inbox_first(self, account):
        for name in ("zebra", "Alpha", "INBOX/below", "alpha"):
            account.create(name)
        listed = [info.name for info in account.mailboxes()]
        assert listed[0] == "INBOX"
        assert listed[1:] == sorted(listed[1:])

    def test_create_what_exists(self, account):
        account.create("a")
        with pytest.raises(MailboxExists):
            account.create("a")

    @pytest.mark.parametrize(
        "name",
        ["", "/", "a//b", "/a", "a/", "..", ".", "a/../b", "a\x00b", "a\nb", "a\x7f", "\ud800", "x" * 300, "a.b", "~a"],
    )
    def test_names_that_no_mailbox_can_have(self, account, name):
        before = names(account)
        with pytest.raises(BadMailboxName):
            account.create(name)
        account.create("old")
        with pytest.raises(BadMailboxName):
            account.rename("old", name)
        account.delete("old")
        assert names(account) == before
        with pytest.raises((NoSuchMailbox, BadMailboxName)):
            account.mailbox(name)
        with pytest.raises((NoSuchMailbox, BadMailboxName)):
            account.delete(name)

    @pytest.mark.parametrize(
        "name",
        ["Entwürfe", "日本語/下書き", "a&b", "a~b", "with space", "100%", "x*y", "a\\b", 'q"q', "&AOk-", "😀"],
    )
    def test_hard_names_come_back_as_they_were(self, make_store, name):
        account = make_store().account(USER)
        account.create(name)
        put(account, name)
        account.set_subscribed(name, subscribed=True)
        account.close()
        again = make_store().account(USER)
        assert names(again)[name] is True
        assert again.status(name).messages == 1
        assert name in again.subscriptions()
        again.close()

    def test_names_differ_in_case(self, account):
        account.create("a")
        account.create("A")
        put(account, "A")
        assert account.status("a").messages == 0

    def test_delete(self, account):
        account.create("a")
        put(account, "a")
        account.delete("a")
        assert "a" not in names(account)
        for use in (account.mailbox, account.status, account.delete, account.total_size):
            with pytest.raises(NoSuchMailbox):
                use("a")

    def test_delete_inbox(self, account):
        with pytest.raises(Cannot):
            account.delete("inbox")

    def test_delete_a_parent_leaves_its_name(self, account):
        account.create("a/b")
        put(account, "a/b")
        put(account, "a")
        account.delete("a")
        assert names(account)["a"] is False
        assert names(account)["a/b"] is True
        assert account.status("a/b").messages == 1
        with pytest.raises(NoSuchMailbox):
            account.mailbox("a")
        with pytest.raises(MailboxHasChildren):
            account.delete("a")
        account.create("a")
        assert account.status("a").messages == 0
        account.delete("a")
        account.delete("a/b")
        assert not {"a", "a/b"} & names(account).keys()

    def test_a_name_made_again_has_a_higher_uid_validity(self, account):
        """RFC 3501 2.3.1.1: else a client takes new messages for the old ones."""
        account.create("a")
        first = account.mailbox("a")
        validity, id_ = account.status("a").uid_validity, first.id
        put(account, "a")
        account.delete("a")
        account.create("a")
        assert account.status("a").uid_validity > validity
        assert account.mailbox("a").id != id_
        assert account.status("a").messages == 0

    def test_rename(self, account):
        account.create("a/b")
        uid = put(account, "a", flags=["\\Seen", "work"])
        put(account, "a/b")
        before = account.mailbox("a")
        validity = account.status("a").uid_validity
        account.rename("a", "x/y")
        assert not {"a", "a/b"} & names(account).keys()
        assert {"x": True, "x/y": True, "x/y/b": True}.items() <= names(account).items()
        after = account.mailbox("x/y")
        assert after.id == before.id
        assert flags(after) == {uid: {"\\Seen", "work"}}
        assert account.status("x/y").uid_validity == validity
        assert account.status("x/y/b").messages == 1

    def test_rename_keeps_open_mailboxes_usable(self, account):
        account.create("a")
        uid = put(account, "a")
        opened = account.mailbox("a")
        account.rename("a", "z")
        opened.refresh()
        assert opened.name == "z"
        assert content(opened, uid) == message()
        opened.store_flags([uid], ADD, ["\\Seen"])
        assert account.status("z").unseen == 0

    def test_rename_refusals(self, account):
        account.create("a/b")
        account.create("c")
        before = names(account)
        with pytest.raises(NoSuchMailbox):
            account.rename("none", "new")
        with pytest.raises(MailboxExists):
            account.rename("a", "c")
        with pytest.raises(MailboxExists):
            account.rename("a", "a")
        with pytest.raises(MailboxExists):
            account.rename("a", "inbox")
        with pytest.raises((BadMailboxName, Cannot)):
            account.rename("a", "a/d")
        assert names(account) == before

    def test_rename_inbox_moves_its_messages(self, account, inbox, three):
        """RFC 3501 6.3.5: INBOX is left empty, its children stay."""
        account.create("INBOX/child")
        put(account, "INBOX/child")
        inbox.store_flags([three[1]], ADD, ["\\Flagged", "work"])
        id_, next_, modseq = inbox.id, account.status("INBOX").uid_next, inbox.load().modseq
        account.rename("INBOX", "old/mail")
        assert account.mailbox("INBOX").id == id_
        assert uids(inbox) == []
        assert account.status("INBOX").uid_next >= next_
        assert list(inbox.changes_since(modseq).expunged) == three
        moved = account.mailbox("old/mail")
        assert [content(moved, uid) for uid in uids(moved)] == [message(word) for word in ("one", "two", "three")]
        assert sorted(flags(moved).values(), key=len) == [set(), set(), {"\\Flagged", "work"}]
        assert account.status("INBOX/child").messages == 1
        assert put(account) >= next_

    def test_special_use(self, make_store):
        account = make_store().account(USER)
        account.create("Gesendet", frozenset({"\\Sent"}))
        account.close()
        again = make_store().account(USER)
        uses = {info.name: info.special_use for info in again.mailboxes()}
        assert "\\Sent" in uses["Gesendet"]
        assert uses["INBOX"] == frozenset()
        again.rename("Gesendet", "Weg")
        assert "\\Sent" in {info.name: info.special_use for info in again.mailboxes()}["Weg"]
        again.close()

    def test_subscriptions(self, make_store):
        account = make_store().account(USER)
        before = account.subscriptions()
        account.create("a")
        account.set_subscribed("a", subscribed=True)
        account.set_subscribed("a", subscribed=True)
        account.set_subscribed("not/there", subscribed=True)
        assert account.subscriptions() == before | {"a", "not/there"}
        account.delete("a")  # RFC 3501 6.3.9: not unsubscribed by it
        account.close()
        again = make_store().account(USER)
        assert again.subscriptions() == before | {"a", "not/there"}
        again.set_subscribed("a", subscribed=False)
        again.set_subscribed("a", subscribed=False)
        again.create("b")
        again.set_subscribed("b", subscribed=True)
        assert again.subscriptions() == before | {"b", "not/there"}
        assert {info.name: info.subscribed for info in again.mailboxes()}["b"] is True
        again.close()

    # --- appending

    def test_append(self, account, inbox):
        before = account.status("INBOX")
        data = message("first")
        appended = account.append("INBOX", [staged(account, data, ["\\Seen", "\\Flagged", "work"])])
        after = account.status("INBOX")
        assert appended.mailbox == inbox.id
        assert appended.uid_validity == after.uid_validity == before.uid_validity
        [uid] = appended.uids
        assert uid >= before.uid_next
        assert after.uid_next > uid
        assert (after.messages, after.unseen, after.deleted) == (1, 0, 0)
        assert after.highest_modseq > before.highest_modseq
        assert content(inbox, uid) == data
        assert flags(inbox) == {uid: {"\\Seen", "\\Flagged", "work"}}
        [row] = inbox.load().rows
        assert row.size in {len(data), UNKNOWN_SIZE}
        assert row.date in {DATE, UNKNOWN_DATE}

    def test_append_several_at_once(self, account, three, inbox):
        assert three == sorted(three)
        assert [content(inbox, uid) for uid in three] == [message(word) for word in ("one", "two", "three")]

    def test_append_nothing(self, account):
        assert list(account.append("INBOX", []).uids) == []

    def test_append_is_all_or_none(self, account, inbox):
        inbox_before, modseq = uids(inbox), inbox.load().modseq
        many = [staged(account, message(), [f"word{n}"]) for n in range(MAX_KEYWORDS + 1)]
        with pytest.raises(LimitReached):
            account.append("INBOX", many)
        assert uids(inbox) == inbox_before
        assert not inbox.changes_since(modseq).rows
        for new in many:
            new.staged.abort()

    def test_append_to_no_mailbox(self, account):
        new = staged(account, message())
        with pytest.raises(NoSuchMailbox):
            account.append("none", [new])
        new.staged.abort()
        new.staged.abort()
        assert "none" not in names(account)

    def test_a_refused_staged_message_can_still_be_used(self, account, inbox):
        """TRYCREATE: LMTP falls back to INBOX."""
        new = staged(account, message("kept"))
        with pytest.raises(NoSuchMailbox):
            account.append("none", [new])
        [uid] = account.append("INBOX", [new]).uids
        assert content(inbox, uid) == message("kept")

    def test_an_aborted_message_is_never_seen(self, account, inbox):
        new = staged(account, message())
        new.staged.abort()
        inbox.refresh()
        assert uids(inbox) == []

    def test_abort_after_use_does_no_harm(self, account, inbox):
        new = staged(account, message())
        [uid] = account.append("INBOX", [new]).uids
        new.staged.abort()
        assert content(inbox, uid) == message()

    def test_line_ends_are_sent_as_crlf(self, account, inbox):
        uid = put(account, data=b"Subject: unix\n\nline\nline\r\nend")
        opened = inbox.open_message(uid)
        sent = b"Subject: unix\r\n\r\nline\r\nline\r\nend"
        assert opened.size == len(sent)
        assert opened.read() == sent
        assert opened.read(9, 4) == sent[9:13]
        assert opened.read(len(sent) - 2, 100) == sent[-2:]
        assert opened.read(len(sent) + 5, 1) == b""
        opened.close()
        assert account.total_size("INBOX") == len(sent)

    @pytest.mark.parametrize(
        "data", [b"", b"\r\n", b"no header", b"a" * 300_000, b"\x00\xff\r\n" * 10, b"x\r", b"\n" * 9]
    )
    def test_odd_content_is_kept(self, account, inbox, data):
        uid = put(account, data=data)
        assert content(inbox, uid) == data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        [(got, row, _summary)] = inbox.summaries([uid])
        assert got == uid
        assert row.size == len(content(inbox, uid))

    def test_reading_in_pieces(self, account, inbox):
        data = message(body="x\r\n" * 50_000)
        uid = put(account, data=data)
        opened = inbox.open_message(uid)
        pieces = b"".join(opened.read(at, 65536) for at in range(0, opened.size, 65536))
        opened.close()
        assert pieces == data

    def test_date_now_by_default(self, account, inbox):
        put(account, data=message())
        new = staged(account, message(), date=None)
        [uid] = account.append("INBOX", [new]).uids
        [(_uid, row, _summary)] = inbox.summaries([uid])
        assert row.date > DATE

    # --- prepare, publish

    def test_publish(self, account, inbox):
        prepared = account.prepare("INBOX", [staged(account, message("a")), staged(account, message("b"), ["\\Seen"])])
        inbox.refresh()
        assert uids(inbox) == []
        appended = prepared.publish()
        assert uids(inbox) == list(appended.uids)
        assert [content(inbox, uid) for uid in appended.uids] == [message("a"), message("b")]
        assert appended.mailbox == inbox.id
        assert account.status("INBOX").unseen == 1
        prepared.abort()
        prepared.abort()
        inbox.refresh()
        assert uids(inbox) == list(appended.uids)

    def test_abort_what_was_prepared(self, account, inbox):
        prepared = account.prepare("INBOX", [staged(account, message())])
        prepared.abort()
        prepared.abort()
        put(account, data=message("other"))
        inbox.refresh()
        assert [content(inbox, uid) for uid in uids(inbox)] == [message("other")]

    def test_prepare_for_no_mailbox(self, account):
        with pytest.raises(NoSuchMailbox):
            account.prepare("none", [staged(account, message())])

    # --- flags

    def test_store_flags(self, inbox, three):
        one, two, three_ = three
        inbox.store_flags([one, two], ADD, ["\\Seen", "work"])
        inbox.store_flags([two], REPLACE, ["\\Flagged"])
        inbox.store_flags([one], REMOVE, ["WORK", "\\Draft", "never"])
        assert flags(inbox) == {one: {"\\Seen"}, two: {"\\Flagged"}, three_: set()}

    def test_every_system_flag_has_its_bit(self, inbox, three):
        for name, bit in SYSTEM_FLAGS.items():
            inbox.store_flags(three[:1], REPLACE, [name])
            assert inbox.load().rows[0].flags == bit
        assert {ANSWERED, FLAGGED, DELETED, SEEN, DRAFT} == set(SYSTEM_FLAGS.values())

    def test_flags_survive_reopening(self, make_store):
        account = make_store().account(USER)
        uid = put(account, flags=["\\Draft", "First"])
        account.mailbox("INBOX").store_flags([uid], ADD, ["\\Answered", "$Second"])
        account.close()
        again = make_store().account(USER)
        assert flags(again.mailbox("INBOX")) == {uid: {"\\Draft", "\\Answered", "first", "$second"}}
        again.close()

    def test_an_unchanged_flag_is_no_change(self, inbox, three):
        """RFC 7162 3.1: the mod-sequence tells of changes."""
        inbox.store_flags(three, ADD, ["\\Seen", "work"])
        modseq = inbox.load().modseq
        inbox.store_flags(three, ADD, ["\\Seen", "WORK"])
        inbox.store_flags(three, REPLACE, ["\\Seen", "work"])
        inbox.store_flags(three, REMOVE, ["\\Draft", "other"])
        assert not inbox.changes_since(modseq).rows

    def test_keywords_are_one_in_any_case(self, inbox, three):
        inbox.store_flags(three[:1], ADD, ["Work"])
        inbox.store_flags(three[1:], ADD, ["wORK"])
        assert inbox.load().keywords == ("Work",)
        assert len({row.flags for row in inbox.load().rows}) == 1

    def test_the_27th_keyword(self, account, inbox, three):
        many = [f"word{n}" for n in range(MAX_KEYWORDS)]
        inbox.store_flags(three[:1], ADD, many)
        assert flags(inbox)[three[0]] == set(many)
        before = inbox.load()
        with pytest.raises(LimitReached):
            inbox.store_flags(three, ADD, ["\\Seen", "one-too-many"])
        with pytest.raises(LimitReached):
            inbox.store_flags(three, REPLACE, ["one-too-many"])
        assert inbox.load() == before
        inbox.store_flags(three[1:], ADD, ["WORD25"])
        assert flags(inbox)[three[2]] == {"word25"}

    def test_keywords_of_a_refused_store_are_not_kept(self, inbox, three):
        inbox.store_flags(three, ADD, [f"word{n}" for n in range(MAX_KEYWORDS - 1)])
        with pytest.raises(LimitReached):
            inbox.store_flags(three, ADD, ["new1", "new2"])
        inbox.store_flags(three, ADD, ["new3"])
        assert len(inbox.load().keywords) == MAX_KEYWORDS

    def test_store_on_messages_gone(self, inbox, three):
        inbox.expunge(three[:1], only_deleted=False)
        stored = inbox.store_flags(three, ADD, ["\\Seen"])
        assert list(stored.gone) == three[:1]
        assert list(stored.modified) == []
        assert flags(inbox) == {uid: {"\\Seen"} for uid in three[1:]}

    def test_store_unchanged_since(self, inbox, three):
        """RFC 7162 3.1.3: messages changed after the given mod-sequence are left alone and named."""
        modseq = inbox.load().modseq
        inbox.store_flags(three[1:2], ADD, ["\\Flagged"])
        stored = inbox.store_flags(three, ADD, ["\\Seen"], modseq)
        assert list(stored.modified) == three[1:2]
        assert list(stored.gone) == []
        assert flags(inbox) == {three[0]: {"\\Seen"}, three[1]: {"\\Flagged"}, three[2]: {"\\Seen"}}

    def test_store_tells_what_was_before_it(self, store, account, inbox, three):
        """So that a session knows which changes are not its own."""
        modseq = inbox.load().modseq
        assert inbox.store_flags(three, ADD, ["\\Seen"]).before == modseq
        modseq = inbox.load().modseq
        other = store.account(USER)
        other.mailbox("INBOX").store_flags(three[:1], ADD, ["\\Flagged"])
        other.close()
        before = inbox.store_flags(three, ADD, ["work"]).before
        assert before is not None
        assert modseq < before < inbox.load().modseq

    def test_store_flags_of_nothing(self, inbox, three):
        before = inbox.load()
        stored = inbox.store_flags([], ADD, ["\\Seen"])
        assert (list(stored.modified), list(stored.gone)) == ([], [])
        assert inbox.load().rows == before.rows

    # --- expunge

    def test_expunge_only_what_is_deleted(self, account, inbox, three):
        inbox.store_flags(three[1:], ADD, ["\\Deleted"])
        assert account.status("INBOX").deleted == 2
        assert list(inbox.expunge(three[:2])) == [three[1]]
        assert uids(inbox) == [three[0], three[2]]
        assert list(inbox.expunge(three)) == [three[2]]
        assert list(inbox.expunge(three)) == []
        assert uids(inbox) == three[:1]
        assert account.status("INBOX").messages == 1

    def test_expunge_in_any_order_answers_rising(self, inbox, three):
        assert list(inbox.expunge([*reversed(three), UID(999), three[0]], only_deleted=False)) == three

    def test_a_uid_is_never_used_again(self, make_store):
        account = make_store().account(USER)
        first = put(account)
        account.mailbox("INBOX").expunge([first], only_deleted=False)
        next_ = account.status("INBOX").uid_next
        account.close()
        again = make_store().account(USER)
        assert again.status("INBOX").uid_next >= next_
        assert put(again) >= next_ > first
        again.close()

    def test_what_is_expunged_cannot_be_opened(self, inbox, three):
        inbox.expunge(three[:1], only_deleted=False)
        with pytest.raises(MessageExpunged):
            inbox.open_message(three[0])
        with pytest.raises(MessageExpunged):
            inbox.open_message(UID(4_000_000))
        assert [uid for uid, _row, _summary in inbox.summaries(three)] == three[1:]

    # --- copy, move

    def test_copy(self, account, inbox, three):
        account.create("target")
        put(account, "target")
        inbox.store_flags(three[:1], ADD, ["\\Seen", "work"])
        copied = inbox.copy(three[:2], "target")
        target = account.mailbox("target")
        assert copied.mailbox == target.id
        assert copied.uid_validity == account.status("target").uid_validity
        assert list(copied.source) == three[:2]
        assert list(copied.target) == uids(target)[1:]
        assert [content(target, uid) for uid in copied.target] == [message("one"), message("two")]
        assert flags(target)[copied.target[0]] == {"\\Seen", "work"}
        assert flags(target)[copied.target[1]] == set()
        assert uids(inbox) == three
        [(_u, row, _s)] = target.summaries(copied.target[:1])
        assert row.date == DATE
        assert row.size == len(message("one"))

    def test_a_copy_is_a_message_of_its_own(self, account, inbox, three):
        account.create("target")
        [copy] = inbox.copy(three[:1], "target").target
        target = account.mailbox("target")
        target.store_flags([copy], ADD, ["\\Flagged"])
        assert flags(inbox)[three[0]] == set()
        inbox.expunge(three, only_deleted=False)
        assert content(target, copy) == message("one")

    def test_copy_into_the_same_mailbox(self, inbox, three):
        copied = inbox.copy(three, "INBOX")
        assert uids(inbox) == [*three, *copied.target]
        assert [content(inbox, uid) for uid in copied.target] == [content(inbox, uid) for uid in three]

    def test_copy_is_all_or_none(self, account, inbox, three):
        account.create("target")
        inbox.expunge(three[1:2], only_deleted=False)
        with pytest.raises(MessageExpunged):
            inbox.copy(three, "target")
        with pytest.raises(NoSuchMailbox):
            inbox.copy(three[:1], "none")
        assert uids(account.mailbox("target")) == []

    def test_copy_and_move_respect_the_keyword_limit(self, account, inbox, three):
        account.create("target")
        full = put(account, "target", flags=[f"word{n}" for n in range(MAX_KEYWORDS)])
        inbox.store_flags(three[2:], ADD, ["another"])
        for transfer in (inbox.copy, inbox.move):
            with pytest.raises(LimitReached):
                transfer(three, "target")
        assert uids(account.mailbox("target")) == [full]
        assert uids(inbox) == three

    def test_keywords_are_carried_by_name(self, account, inbox, three):
        """The same letter means another keyword in another mailbox."""
        account.create("target")
        put(account, "target", flags=["zulu", "yankee"])
        inbox.store_flags(three, ADD, ["alpha"])
        inbox.store_flags(three[:1], ADD, ["YANKEE"])
        target = account.mailbox("target")
        copied = inbox.copy(three[:2], "target").target
        moved = inbox.move(three[2:], "target").target
        assert flags(target)[copied[0]] == {"alpha", "yankee"}
        assert flags(target)[copied[1]] == flags(target)[moved[0]] == {"alpha"}

    def test_move(self, account, inbox, three):
        account.create("target")
        inbox.store_flags(three[:1], ADD, ["\\Answered", "work"])
        modseq = inbox.load().modseq
        moved = inbox.move(three[:2], "target")
        target = account.mailbox("target")
        assert list(moved.source) == three[:2]
        assert list(moved.target) == uids(target)
        assert uids(inbox) == three[2:]
        assert [content(target, uid) for uid in moved.target] == [message("one"), message("two")]
        assert flags(target)[moved.target[0]] == {"\\Answered", "work"}
        assert list(inbox.changes_since(modseq).expunged) == three[:2]

    def test_move_what_is_there(self, account, inbox, three):
        account.create("target")
        inbox.expunge(three[:1], only_deleted=False)
        moved = inbox.move(three, "target")
        assert list(moved.source) == three[1:]
        assert uids(inbox) == []
        with pytest.raises(NoSuchMailbox):
            inbox.move(three, "none")

    def test_move_into_the_same_mailbox(self, inbox, three):
        """RFC 6851 3.3 allows it; the messages get new UIDs."""
        moved = inbox.move(three[:1], "INBOX")
        assert uids(inbox) == [*three[1:], *moved.target]
        assert content(inbox, moved.target[0]) == message("one")

    def test_nothing_to_copy_or_move(self, account, inbox):
        account.create("target")
        for transfer in (inbox.copy, inbox.move):
            copied = transfer([], "target")
            assert (list(copied.source), list(copied.target)) == ([], [])

    # --- recent

    def test_recent_is_claimed_once(self, account, inbox, three):
        assert account.status("INBOX").recent == 3
        assert inbox.claim_recent() <= three[0]
        assert account.status("INBOX").recent == 0
        assert inbox.claim_recent() > three[-1]
        new = put(account)
        assert account.status("INBOX").recent == 1
        assert three[-1] < inbox.claim_recent() <= new

    # --- changes

    def test_changes_since_each_kind(self, account, inbox, three):
        account.create("target")
        columns = Columns(inbox.load())
        seen_before = columns.modseq

        def step() -> tuple[list[int], list[int]]:
            changes = inbox.changes_since(columns.modseq)
            assert changes.since == columns.modseq
            assert changes.upto >= changes.since
            assert [row.uid for row in changes.rows] == sorted(row.uid for row in changes.rows)
            assert all(changes.since < row.modseq <= changes.upto for row in changes.rows)
            assert changes.upto == inbox.load().modseq == account.status("INBOX").highest_modseq
            columns.apply(changes)
            assert_equal(columns, inbox)
            return [row.uid for row in changes.rows], list(changes.expunged)

        assert step() == ([], [])
        inbox.store_flags(three[1:], ADD, ["\\Seen"])
        assert step() == (three[1:], [])
        new = put(account)
        assert step() == ([new], [])
        inbox.expunge(three[:1], only_deleted=False)
        assert step() == ([], three[:1])
        inbox.copy(three[1:], "target")
        assert step() == ([], [])
        inbox.move(three[1:2], "target")
        assert step() == ([], three[1:2])
        [back] = account.mailbox("target").move(uids(account.mailbox("target"))[:1], "INBOX").target
        assert step() == ([back], [])
        inbox.store_flags([new], ADD, ["brand-new"])
        assert step() == ([new], [])
        short_lived = put(account)
        inbox.expunge([short_lived], only_deleted=False)
        assert step()[0] == []
        # One answer over all of it says the same.
        whole = inbox.changes_since(seen_before)
        assert {row.uid for row in whole.rows} == {three[2], new, back}
        assert set(three[:2]) <= set(whole.expunged)
        assert not {row.uid for row in whole.rows} & set(whole.expunged)
        assert inbox.changes_since(whole.upto).rows == []

    def test_changes_may_be_applied_twice(self, account, inbox, three):
        old = Columns(inbox.load())
        inbox.expunge(three[:1], only_deleted=False)
        put(account)
        first = inbox.changes_since(old.modseq)
        inbox.store_flags(three[1:], ADD, ["\\Seen"])
        second = inbox.changes_since(old.modseq)
        for changes in (second, first, second):
            old.apply(changes)
        assert_equal(old, inbox)

    def test_modseqs_grow(self, account, inbox, three):
        seen = [inbox.load().modseq]
        for act in (
            lambda: put(account),
            lambda: inbox.store_flags(three, ADD, ["\\Seen"]),
            lambda: inbox.expunge(three[:1], only_deleted=False),
            lambda: inbox.move(three[1:], "INBOX"),
        ):
            act()
            seen.append(inbox.load().modseq)
        assert seen == sorted(set(seen))
        assert seen[0] > 0
        assert seen[-1] < 2**63
        assert inbox.history_floor() <= seen[0]

    def test_modseqs_grow_over_reopening(self, make_store):
        account = make_store().account(USER)
        uid = put(account)
        modseq = account.status("INBOX").highest_modseq
        account.close()
        again = make_store().account(USER)
        inbox = again.mailbox("INBOX")
        inbox.store_flags([uid], ADD, ["\\Seen"])
        assert [row.uid for row in inbox.changes_since(modseq).rows] == [uid]
        again.close()

    def test_a_deleted_mailbox_tells_so(self, account):
        account.create("a")
        uid = put(account, "a")
        opened = account.mailbox("a")
        account.delete("a")
        account.create("a")
        for use in (
            opened.refresh,
            opened.load,
            lambda: opened.changes_since(ModSeq(1)),
            lambda: opened.store_flags([uid], ADD, ["\\Seen"]),
            lambda: opened.expunge([uid]),
            lambda: opened.copy([uid], "INBOX"),
            lambda: opened.move([uid], "INBOX"),
        ):
            with pytest.raises(MailboxChanged):
                use()
        with pytest.raises((MailboxChanged, MessageExpunged)):
            opened.open_message(uid)

    def test_two_handles_see_each_other(self, store, account, inbox, three):
        other = store.account(USER)
        theirs = other.mailbox("INBOX")
        modseq = inbox.load().modseq
        theirs.store_flags(three[:1], ADD, ["\\Flagged", "theirs"])
        theirs.expunge(three[1:2], only_deleted=False)
        new = put(other)
        inbox.refresh()
        changes = inbox.changes_since(modseq)
        assert [row.uid for row in changes.rows] == [three[0], new]
        assert list(changes.expunged) == [three[1]]
        assert flags(inbox) == {three[0]: {"\\Flagged", "theirs"}, three[2]: set(), new: set()}
        other.close()

    def test_users_are_apart(self, store, account, three):
        other = store.account("bert@example.org")
        assert other.status("INBOX").messages == 0
        other.close()

    # --- reading

    def test_status(self, account, inbox, three):
        inbox.store_flags(three[:2], ADD, ["\\Seen"])
        inbox.store_flags(three[1:], ADD, ["\\Deleted"])
        status = account.status("inbox")
        assert (status.messages, status.unseen, status.deleted, status.recent) == (3, 1, 2, 3)
        assert status.uid_next > three[-1]
        assert 0 < status.uid_validity < 2**32
        snapshot = inbox.load()
        assert (snapshot.uid_next, snapshot.uid_validity) == (status.uid_next, status.uid_validity)
        with pytest.raises(NoSuchMailbox):
            account.status("none")

    def test_total_size(self, account, inbox, three):
        assert account.total_size("INBOX") == sum(len(message(word)) for word in ("one", "two", "three"))
        inbox.expunge(three[:1], only_deleted=False)
        assert account.total_size("INBOX") == sum(len(message(word)) for word in ("two", "three"))

    def test_summaries(self, make_store):
        account = make_store().account(USER)
        found = [put(account, data=message(word)) for word in ("one", "two")]
        for _again in range(2):
            inbox = account.mailbox("INBOX")
            rows = {row.uid: row for row in inbox.load().rows}
            answers = list(inbox.summaries(found))
            assert [uid for uid, _row, _summary in answers] == found
            for (uid, row, summary), word in zip(answers, ("one", "two"), strict=True):
                assert isinstance(row, Row)
                assert (row.uid, row.flags, row.modseq) == (uid, rows[uid].flags, rows[uid].modseq)
                assert (row.size, row.date) == (len(message(word)), DATE)
                assert summary == summarise(message(word))
            account.close()
            account = make_store().account(USER)
        account.close()

    @pytest.mark.parametrize(
        ("query", "wanted"),
        [
            (All(), "abcd"),
            (HasFlag("\\Seen"), "ab"),
            (HasFlag("WORK"), "bc"),
            (HasFlag("never"), ""),
            (Not(HasFlag("work")), "ad"),
            (And((HasFlag("\\Seen"), HasFlag("work"))), "b"),
            (And(()), "abcd"),
            (Or((HasFlag("\\Seen"), HasFlag("work"))), "abc"),
            (Larger(5000), "d"),
            (Smaller(5000), "abc"),
            (Received(DAY, DAY + 1), "abc"),
            (Received(None, DAY), ""),
            (Received(DAY + 1, None), "d"),
            (Sent(10186, 10187), "abcd"),
            (Sent(None, 10186), ""),
            (Header("Subject", "ALPHA"), "a"),
            (Header("subject", ""), "abcd"),
            (Header("x-odd", "strange beta"), "b"),
            (Header("x-none", ""), ""),
            (Body("needle"), "c"),
            (Body("alpha"), ""),
            (Text("alpha"), "a"),
            (Text("NEEDLE"), "c"),
            (Or((Body("needle"), Header("x-odd", "delta"))), "cd"),
            (ChangedSince(ModSeq(0)), "abcd"),
        ],
    )
    def test_search(self, account, inbox, query, wanted):
        words = {"alpha": ["\\Seen"], "beta": ["\\Seen", "work"], "gamma": ["Work"], "delta": []}
        letters = {}
        for word, given in words.items():
            body = {"gamma": "a Needle here", "delta": "long\r\n" * 1000}.get(word, "plain")
            date = DATE + 86400 if word == "delta" else DATE
            [uid] = account.append("INBOX", [staged(account, message(word, body), given, date)]).uids
            letters[uid] = word[0].replace("g", "c")
        everything = sorted(letters)
        assert "".join(letters[uid] for uid in inbox.search(query, everything)) == wanted
        # Only candidates match.
        assert "".join(letters[uid] for uid in inbox.search(query, everything[:2])) == "".join(
            letter for letter in wanted if letter in "ab"
        )

    def test_search_by_uid_and_modseq(self, inbox, three):
        assert list(inbox.search(InUIDs(((three[1], 4_000_000),)), three)) == three[1:]
        modseq = inbox.load().modseq
        inbox.store_flags(three[:1], ADD, ["\\Seen"])
        assert list(inbox.search(ChangedSince(ModSeq(modseq + 1)), three)) == three[:1]

    def test_search_leaves_out_what_is_gone(self, inbox, three):
        inbox.expunge(three[1:2], only_deleted=False)
        for query in (All(), Text("o"), Not(Body("nothing like it")), Smaller(10**6)):
            assert list(inbox.search(query, three)) == [three[0], three[2]]

    # --- the whole, kept over reopening

    def test_everything_survives_reopening(self, make_store):
        account = make_store().account(USER)
        account.create("a/b")
        kept = [put(account, "a/b", message(str(n)), ["\\Seen"] if n % 2 else ["even"]) for n in range(6)]
        box = account.mailbox("a/b")
        box.expunge(kept[:1], only_deleted=False)
        box.move(kept[1:2], "INBOX")
        box.copy(kept[2:3], "INBOX")
        pictures = [picture(account, name) for name in ("INBOX", "a/b")]
        account.close()
        again = make_store().account(USER)
        assert [picture(again, name) for name in ("INBOX", "a/b")] == pictures
        again.close()


def picture(account: Account, name: str) -> tuple[object, ...]:
    """All that a client can see of a mailbox."""
    mailbox = account.mailbox(name)
    mailbox.refresh()
    status = account.status(name)
    flagged = flags(mailbox)
    return (
        mailbox.id,
        status.uid_validity,
        [(uid, sorted(flagged[uid]), content(mailbox, uid)) for uid in flagged],
    )


def assert_equal(columns: Columns, mailbox: Mailbox) -> None:
    """Columns brought up to date by changes say what a fresh load says."""
    fresh = Columns(mailbox.load())
    for column in ("uids", "flags", "modseqs", "modseq", "keywords", "uid_next", "uid_validity"):
        assert getattr(columns, column) == getattr(fresh, column), column
