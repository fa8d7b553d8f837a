"""Of the contract: messages that come, change, move and go."""

from __future__ import annotations

import pytest

from mailserver.errors import (
    LimitReached,
    MessageExpunged,
    NoSuchMailbox,
)
from mailserver.store.columns import Columns
from mailserver.store.flags import ANSWERED, DELETED, DRAFT, FLAGGED, LETTERS, MAX_KEYWORDS, SEEN, SYSTEM_FLAGS
from mailserver.store.query import HasFlag
from mailserver.store.receiving import Appended, Delivery
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE
from tests.store.samples import (
    ADD,
    DATE,
    REMOVE,
    REPLACE,
    USER,
    assert_equal,
    content,
    flags,
    message,
    names,
    put,
    staged,
    uids,
)


class Messages:
    """Mixed into StoreContract."""

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
        words = [f"word{n}" for n in range(MAX_KEYWORDS + 1)]
        many = [staged(account, message(), part) for part in (words[:200], words[200:400], words[400:])]
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

    def test_deliveries_that_meet_are_independent(self, account, inbox):
        account.create("other")
        spoilt = staged(account, message("spoilt"))
        spoilt.staged.abort()
        wanted = [
            Delivery("inbox", [staged(account, message("one"))]),
            Delivery("nowhere", [staged(account, message("two"))]),
            Delivery("other", [staged(account, message("three"), ["\\Seen", "work"])]),
            Delivery("INBOX", [spoilt]),
            Delivery("INBOX", [staged(account, message("four")), staged(account, message("five"))]),
            Delivery("INBOX", [staged(account, message("six"), ["later"])]),
            Delivery("../nowhere", [staged(account, message("seven"))]),
        ]
        outcomes = account.deliver(wanted)
        assert isinstance(outcomes.pop(3), Exception)
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds == [Appended, NoSuchMailbox, Appended, Appended, Appended, NoSuchMailbox]
        other = account.mailbox("other")
        for outcome, mailbox, subjects in (
            (outcomes[0], inbox, ["one"]),
            (outcomes[2], other, ["three"]),
            (outcomes[3], inbox, ["four", "five"]),
            (outcomes[4], inbox, ["six"]),
        ):
            assert (outcome.mailbox, outcome.claimed) == (mailbox.id, False)
            assert [content(mailbox, uid) for uid in outcome.uids] == [message(subject) for subject in subjects]
        assert sorted(uids(inbox)) == sorted({uid for at in (0, 3, 4) for uid in outcomes[at].uids})
        assert flags(other) == {outcomes[2].uids[0]: {"\\Seen", "work"}}
        assert flags(inbox)[outcomes[4].uids[0]] == {"later"}
        assert account.deliver([]) == []

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
        assert [row.size for row in inbox.measure([uid])] == [len(sent)]

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

    def test_reading_many_whole(self, account, inbox):
        texts = [message(word) for word in ("one", "two")] + [b"a: b\n\nbare\n", b"", message(body="x" * 5000)]
        found = [put(account, data=data) for data in texts]
        sent = [data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for data in texts]
        total = sum(map(len, sent))
        everything = list(zip(found, sent, strict=True))
        for _again in range(2):
            assert list(inbox.read_whole(found, total)) == everything
            assert list(inbox.read_whole(found, total - 1)) == everything[:4]
            assert list(inbox.read_whole(found[4:], 5000)) == []
            assert list(inbox.read_whole([], 5000)) == []
            assert list(inbox.read_whole(found[1:4:2], 5000)) == everything[1:4:2]
            inbox.summaries(found)  # from now on, sizes are known
        inbox.expunge(found[1:2], only_deleted=False)
        assert list(inbox.read_whole(found, total)) == everything[:1]
        assert list(inbox.read_whole(found[1:], total)) == []
        assert list(inbox.read_whole(found[2:], total)) == everything[2:]

    def test_date_now_by_default(self, account, inbox):
        put(account, data=message())
        new = staged(account, message(), date=None)
        [uid] = account.append("INBOX", [new]).uids
        [(_uid, row, _summary)] = inbox.summaries([uid])
        assert row.date > DATE

    # --- prepare, publish

    @pytest.mark.parametrize("token", ["", "0123abcd"], ids=["plain", "token"])
    def test_publish(self, account, inbox, token):
        messages = [staged(account, message("a")), staged(account, message("b"), ["\\Seen"])]
        prepared = account.prepare("INBOX", messages, token)
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

    @pytest.mark.parametrize("token", ["", "0123abcd"], ids=["plain", "token"])
    def test_abort_what_was_prepared(self, account, inbox, token):
        prepared = account.prepare("INBOX", [staged(account, message())], token)
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

    def test_the_501st_keyword(self, account, inbox, three):
        many = [f"word{n}" for n in range(MAX_KEYWORDS)]
        inbox.store_flags(three[:1], ADD, many)
        assert flags(inbox)[three[0]] == set(many)
        before = inbox.load()
        with pytest.raises(LimitReached):
            inbox.store_flags(three, ADD, ["\\Seen", "one-too-many"])
        with pytest.raises(LimitReached):
            inbox.store_flags(three, REPLACE, ["one-too-many"])
        assert inbox.load() == before
        inbox.store_flags(three[1:], ADD, ["WORD25", "WORD499"])
        assert flags(inbox)[three[2]] == {"word25", "word499"}

    def test_keywords_beyond_the_letters(self, account, inbox, three):
        modseq = inbox.load().modseq
        columns = Columns(inbox.load())
        inbox.store_flags(three[:1], ADD, [f"word{n}" for n in range(LETTERS + 4)])
        inbox.store_flags(three[1:], ADD, ["\\Seen", "word27", "word29"])
        assert columns.apply(inbox.changes_since(modseq))
        assert_equal(columns, inbox)
        stored = inbox.store_flags(three, REMOVE, ["word27", "word3"], inbox.load().modseq)
        assert not stored.modified
        columns.apply(inbox.changes_since(columns.modseq))
        assert_equal(columns, inbox)
        expected = {f"word{n}" for n in range(LETTERS + 4)} - {"word27", "word3"}
        assert flags(inbox) == {
            three[0]: expected, three[1]: {"\\Seen", "word29"}, three[2]: {"\\Seen", "word29"},
        }  # fmt: skip
        inbox.store_flags(three[:1], REPLACE, ["word28", "\\Flagged"])
        assert flags(inbox)[three[0]] == {"word28", "\\Flagged"}
        assert [uid for uid in three if uid in inbox.search(HasFlag("word29"), three)] == three[1:]
        inbox.expunge(three[1:2], only_deleted=False)
        columns.apply(inbox.changes_since(columns.modseq))
        assert_equal(columns, inbox)

    def test_keywords_beyond_the_letters_come_with_appended_messages(self, account, inbox, three):
        names = [f"word{n}" for n in range(LETTERS + 4)]
        uid = put(account, flags=[*names, "\\Seen"])
        assert flags(inbox)[uid] == {*names, "\\Seen"}
        replaced = inbox.replace(three[0], "INBOX", staged(account, message("new"), ["word29"]))
        assert flags(inbox)[replaced.uids[0]] == {"word29"}

    def test_keywords_beyond_the_letters_are_carried_by_name(self, account, inbox, three):
        names = [f"word{n}" for n in range(LETTERS + 4)]
        inbox.store_flags(three, ADD, [*names, "\\Seen"])
        account.create("target")
        put(account, "target", flags=["word29", *(f"other{n}" for n in range(LETTERS))])
        target = account.mailbox("target")
        copied = inbox.copy(three[:1], "target").target
        within = inbox.copy(three[1:2], "INBOX").target
        moved = inbox.move(three[1:], "target").target
        target.refresh()
        found = flags(target)
        assert {frozenset(found[uid]) for uid in (*copied, *moved)} == {frozenset({*names, "\\Seen"})}
        assert flags(inbox)[within[0]] == {*names, "\\Seen"}
        account.rename("target", "renamed")
        account.rename("INBOX", "old")
        for name in ("renamed", "old"):
            assert {*names, "\\Seen"} in flags(account.mailbox(name)).values()

    def test_keywords_that_no_message_has_make_room(self, inbox, three):
        inbox.store_flags(three, ADD, [f"word{n}" for n in range(MAX_KEYWORDS)])
        inbox.store_flags(three[1:], REPLACE, ["word3"])
        with pytest.raises(LimitReached):
            inbox.store_flags(three, ADD, ["one-too-many"])
        inbox.store_flags(three, REMOVE, ["word2", "word100", "word499"])
        columns = Columns(inbox.load())
        inbox.store_flags(three[1:], ADD, ["new"])
        assert flags(inbox)[three[1]] == {"word3", "new"}
        assert flags(inbox)[three[0]] == {f"word{n}" for n in range(MAX_KEYWORDS)} - {"word2", "word100", "word499"}
        columns.apply(inbox.changes_since(columns.modseq))
        assert_equal(columns, inbox)
        names = set(inbox.load().keywords)
        assert "word2" in names, "letters are never freed"
        assert not names & {"word100", "word499"}
        inbox.store_flags(three[:1], ADD, ["word499"])
        with pytest.raises(LimitReached):
            inbox.store_flags(three, ADD, ["one-too-many"])

    def test_keywords_are_bounded_in_octets(self, inbox, three):
        inbox.store_flags(three, ADD, [f"{n}" + "x" * 4000 for n in range(4)])
        with pytest.raises(LimitReached):
            inbox.store_flags(three, ADD, ["y" * 4000])
        inbox.store_flags(three, ADD, ["y"])

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

    # --- sort keys

    def test_sort_keys(self, account, inbox, three):
        names = ("subject", "sent", "message_id")
        expected = [
            (uid, name.upper(), 880127706, f"{name}@example.test")
            for uid, name in zip(three, ("one", "two", "three"), strict=True)
        ]
        assert sorted(inbox.sort_keys(three, names)) == expected
        inbox.expunge(three[:1], only_deleted=False)
        again = put(account, data=b"Subject: Re: four\r\nFrom: =?utf-8?q?=C3=A4?= <x@y>\r\n\r\n")
        asked = [*three, again, UID(4_000_000)]
        assert sorted(inbox.sort_keys(asked, names)) == [*expected[1:], (again, "FOUR", None, "")]
        assert list(inbox.sort_keys([again], ("is_reply", "display_sender"))) == [(again, True, "A\u0308")]
        assert list(inbox.sort_keys([again], ())) == [(again,)]

    def test_copies_have_the_sort_keys_of_their_messages(self, account, inbox, three):
        inbox.sort_keys(three[:2], ("subject",))
        account.create("target")
        copied = inbox.copy(three, "target")
        found = account.mailbox("target").sort_keys(copied.target, ("subject",))
        assert sorted(found) == list(zip(copied.target, ("ONE", "TWO", "THREE"), strict=True))

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

    def test_copy_skips_what_is_expunged_if_told_to(self, account, inbox, three):
        account.create("target")
        inbox.expunge(three[1:2], only_deleted=False)
        copied = inbox.copy(three, "target", skip_expunged=True)
        assert copied.source == [three[0], three[2]]
        assert uids(account.mailbox("target")) == copied.target
        nothing = inbox.copy(three[1:2], "target", skip_expunged=True)
        assert (nothing.source, nothing.target) == ([], [])
        assert uids(account.mailbox("target")) == copied.target

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

    # --- replacing

    def test_replace(self, account, inbox, three):
        before = inbox.load()
        data = message("new")
        appended = inbox.replace(three[1], "INBOX", staged(account, data, ["\\Draft", "work"]))
        [uid] = appended.uids
        assert (appended.mailbox, appended.uid_validity) == (inbox.id, before.uid_validity)
        assert uid >= before.uid_next
        assert uids(inbox) == [three[0], three[2], uid]
        assert content(inbox, uid) == data
        assert flags(inbox)[uid] == {"\\Draft", "work"}
        changes = inbox.changes_since(before.modseq)
        assert (list(changes.expunged), [row.uid for row in changes.rows]) == ([three[1]], [uid])
        # One step has one modseq.
        assert changes.upto == changes.rows[0].modseq
        assert list(inbox.expunged_since(changes.upto - 1)) == [three[1]]
        assert account.status("INBOX").messages == 3
        assert account.mailbox("INBOX").load().uids == inbox.load().uids

    def test_replace_into_another_mailbox(self, account, inbox, three):
        account.create("sent")
        sent = account.mailbox("sent")
        modseq = inbox.load().modseq
        appended = inbox.replace(three[2], "sent", staged(account, message("new"), ["\\Seen"]))
        assert appended.mailbox == sent.id
        assert uids(inbox) == three[:2]
        assert uids(sent) == list(appended.uids)
        assert list(inbox.changes_since(modseq).expunged) == [three[2]]
        assert content(sent, appended.uids[0]) == message("new")
        assert account.usage().messages == 3

    def test_replace_of_nothing_adds_nothing(self, account, inbox, three):
        account.create("gone")
        inbox.expunge([three[0]], only_deleted=False)
        for uid, target, error in (
            (three[0], "INBOX", MessageExpunged),
            (UID(99), "gone", MessageExpunged),
            (three[1], "none", NoSuchMailbox),
        ):
            new = staged(account, message("new"))
            with pytest.raises(error):
                inbox.replace(uid, target, new)
            new.staged.abort()
        assert uids(inbox) == three[1:]
        assert account.status("gone").messages == 0

    def test_replace_respects_the_keyword_limit(self, account, inbox, three):
        new = staged(account, message("new"), [f"word{n}" for n in range(MAX_KEYWORDS + 1)])
        with pytest.raises(LimitReached):
            inbox.replace(three[0], "INBOX", new)
        new.staged.abort()
        assert uids(inbox) == three

    def test_replace_takes_the_sums_along(self, account, inbox, three):
        large = message("new", "x" * 1000)
        inbox.replace(three[0], "INBOX", staged(account, large))
        assert account.usage().storage == len(large) + len(message("two")) + len(message("three"))
