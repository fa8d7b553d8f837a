"""Of the contract: what readers are told, and when."""

from __future__ import annotations

import re
import time

import pytest

from mailserver.errors import (
    MailboxChanged,
    MessageExpunged,
    NoSuchMailbox,
)
from mailserver.message.render import summarise
from mailserver.store.columns import Columns
from mailserver.store.query import (
    All,
    And,
    Arrived,
    Body,
    ChangedSince,
    HasFlag,
    Header,
    InUIDs,
    Larger,
    Not,
    Or,
    Received,
    Saved,
    Sent,
    Smaller,
    Text,
    WithEmailId,
)
from mailserver.store.rows import Row, Snapshot
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, UNKNOWN_DATE, ModSeq
from tests.store.samples import ADD, DATE, DAY, USER, assert_equal, flags, message, picture, put, staged, uids


class Reading:
    """Mixed into StoreContract."""

    # --- recent

    def test_recent_is_claimed_once(self, account, inbox, three):
        assert account.status("INBOX").recent == 3
        assert inbox.claim_recent() == range(three[0], three[-1] + 1)
        assert account.status("INBOX").recent == 0
        assert not inbox.claim_recent()
        new = put(account)
        assert account.status("INBOX").recent == 1
        assert new in inbox.claim_recent()

    def test_recent_is_claimed_below_a_uid(self, account, inbox, three):
        assert inbox.first_recent() <= three[0]
        assert inbox.claim_recent(three[1]) == range(three[0], three[1])
        assert inbox.first_recent() == three[1]
        assert not inbox.claim_recent(three[0])
        assert account.status("INBOX").recent == 2
        assert inbox.claim_recent() == range(three[1], three[-1] + 1)
        assert not inbox.claim_recent(three[0])
        assert inbox.first_recent() > three[-1]

    def test_what_is_appended_for_a_session_that_is_there_is_claimed_for_it(self, account, inbox):
        for there in (True, False):
            appended = account.append("INBOX", [staged(account, message())], lambda _mailbox, there=there: there)
            assert appended.claimed is there
            assert account.status("INBOX").recent == int(not there)
        assert inbox.claim_recent().start == appended.uids[0]

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

    def test_expunges_since(self, account, inbox, three):
        seen = inbox.load().modseq
        assert inbox.expunged_since(seen) == []
        inbox.store_flags(three[:1], ADD, ["\\Seen"])
        assert inbox.expunged_since(seen) == []
        inbox.expunge(three[2:], only_deleted=False)
        between = inbox.load().modseq
        account.create("target")
        inbox.move(three[:1], "target")
        assert inbox.expunged_since(seen) == [three[0], three[2]]
        assert inbox.expunged_since(between) == [three[0]]
        assert inbox.expunged_since(inbox.load().modseq) == []
        assert inbox.expunged_since(ModSeq(inbox.load().modseq + 1)) is None

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

    def test_who_is_further_behind_than_any_history_gets_level(self, account, inbox, three):
        known = inbox.load()
        columns = Columns(Snapshot.of(known.rows, ModSeq(0), known.keywords, known.uid_next, known.uid_validity))
        inbox.expunge(three[1:2], only_deleted=False)
        put(account)
        columns.apply(inbox.changes_since(ModSeq(0)))
        assert_equal(columns, inbox)
        assert list(columns.expunged) == three[1:2]

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
                kept = summarise(message(word))
                assert (summary.envelope, summary.body) == (kept.envelope, kept.body)
                assert (summary.body_structure, summary.fields) == (kept.body_structure, kept.fields)
            account.close()
            account = make_store().account(USER)
        account.close()

    def test_sizes_and_dates(self, account, inbox, three):
        known = {row.uid: row for row in inbox.load().rows}
        rows = inbox.measure([*three, UID(three[-1] + 100)])
        assert [row.uid for row in rows] == list(three)
        assert [row.size for row in rows] == [len(message(word)) for word in ("one", "two", "three")]
        assert [(row.flags, row.modseq) for row in rows] == [(known[uid].flags, known[uid].modseq) for uid in three]
        assert all(row.date != UNKNOWN_DATE for row in rows)
        inbox.expunge([three[0]], only_deleted=False)
        assert [row.uid for row in inbox.measure(three)] == list(three[1:])

    def test_summaries_of_headers_alone(self, account, inbox, three):
        wanted = [summarise(message(word)) for word in ("one", "two", "three")]
        answers = list(inbox.summaries(three, only_head=True))
        assert [(uid, row.uid) for uid, row, _summary in answers] == [(uid, uid) for uid in three]
        for (_uid, _row, summary), whole in zip(answers, wanted, strict=True):
            assert (summary.envelope, summary.fields) == (whole.envelope, whole.fields)
        # Who then asks for all of it gets all of it.
        answers = list(inbox.summaries(three))
        assert [summary[:4] for _uid, _row, summary in answers] == [whole[:4] for whole in wanted]
        assert [row.size for _uid, row, _summary in answers] == [len(message(word)) for word in ("one", "two", "three")]

    def test_envelopes_that_are_kept(self, account, inbox, three):
        wanted = {
            uid: summarise(message(word)).envelope for uid, word in zip(three, ("one", "two", "three"), strict=True)
        }
        inbox.summaries(three, only_head=True)
        assert inbox.envelopes(three) == wanted
        assert inbox.envelopes([three[2], three[0], UID(three[2] + 9)]) == {
            uid: wanted[uid] for uid in (three[0], three[2])
        }
        assert inbox.envelopes([]) == {}
        inbox.expunge([three[1]], only_deleted=False)
        assert inbox.envelopes(three) == {uid: wanted[uid] for uid in (three[0], three[2])}

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
            (Arrived(DATE, DATE + 1), "abc"),
            (Arrived(None, DATE), ""),
            (Arrived(DATE + 1, None), "d"),
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

    def test_search_in_a_mailbox_with_gaps(self, account, inbox):
        words = ["apple", "Birne", "cherry", "BIRNE", "date"]
        found = []
        for word in words:
            found.append(put(account, data=message(word, body="the text is of a " + word)))
            passing = [put(account, data=message("birne")) for _ in range(15)]
            inbox.expunge(passing, only_deleted=False)
        everything = list(found)
        for query in (Header("subject", "birne"), Text("birne"), Body("birne"), Header("x-odd", "birne")):
            assert list(inbox.search(query, everything)) == [found[1], found[3]]
            assert list(inbox.search(Not(query), everything)) == [found[0], found[2], found[4]]
            assert list(inbox.search(query, found[:2])) == found[1:2]
            assert list(inbox.search(query, [UID(uid + 1) for uid in found])) == []
        either = Or((Header("subject", "cherry"), Header("subject", "date")))
        assert list(inbox.search(either, everything)) == [found[2], found[4]]
        assert list(inbox.search(Header("subject", ""), everything)) == everything

    def test_search_by_uid_and_modseq(self, inbox, three):
        assert list(inbox.search(InUIDs(((three[1], 4_000_000),)), three)) == three[1:]
        modseq = inbox.load().modseq
        inbox.store_flags(three[:1], ADD, ["\\Seen"])
        assert list(inbox.search(ChangedSince(ModSeq(modseq + 1)), three)) == three[:1]

    def test_search_leaves_out_what_is_gone(self, inbox, three):
        inbox.expunge(three[1:2], only_deleted=False)
        for query in (All(), Text("o"), Not(Body("nothing like it")), Smaller(10**6)):
            assert list(inbox.search(query, three)) == [three[0], three[2]]

    def test_previews(self, account, inbox, three):
        account.create("other")
        assert inbox.previews(three, only_kept=True) == dict.fromkeys(three)
        slice_of_one = TimeSlice(1)
        made = inbox.previews(three, time_slice=slice_of_one)
        assert slice_of_one.full
        assert list(made) == three[:1]
        assert inbox.previews(three, only_kept=True) == {**dict.fromkeys(three), **made}
        found = inbox.previews(three)
        assert list(found) == three
        assert all(found.values())
        assert inbox.previews(three[1:], only_kept=True) == {uid: found[uid] for uid in three[1:]}
        inbox.expunge(three[1:2], only_deleted=False)
        assert list(inbox.previews(three)) == [three[0], three[2]]
        large = put(account, data=b"Subject: large\r\n\r\nBeginning\r\n" + b"of it\r\n" * 100_000)
        empty = put(account, data=b"Subject: empty\r\n\r\n")
        found = inbox.previews([large, empty])
        assert found[large].startswith("Beginning of it of it")
        assert found[empty] == ""
        assert inbox.previews([empty], only_kept=True) == {empty: ""}

    def test_save_dates(self, account, inbox, three):
        before = int(time.time()) - 60
        account.create("other")
        dates = inbox.save_dates(three)
        assert list(dates) == three
        assert all(before < date < before + 3600 for date in dates.values())
        inbox.store_flags(three, ADD, ["\\Seen", "work"])
        assert inbox.save_dates(three[1:]) == {uid: dates[uid] for uid in three[1:]}
        inbox.copy(three[:1], "other")
        inbox.move(three[1:2], "other")
        assert list(inbox.save_dates(three)) == [three[0], three[2]]
        assert len(account.mailbox("other").save_dates(uids(account.mailbox("other")))) == 2
        today = next(iter(dates.values())) // 86400
        for query, wanted in (
            (Saved(today, None), [three[0], three[2]]),
            (Saved(None, today), []),
            (Saved(today - 1, today + 2), [three[0], three[2]]),
            (Not(Saved(None, today)), [three[0], three[2]]),
            (And((Saved(today, None), Saved(None, today))), []),
        ):
            assert list(inbox.search(query, three)) == wanted

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

    def test_email_ids_stay_with_the_content(self, account, inbox, three):
        account.create("other")
        first = inbox.email_ids(three)
        assert list(first) == three
        assert len(set(first.values())) == 3
        assert all(re.fullmatch("[0-9a-f]{24}", each) for each in first.values())
        inbox.store_flags(three, ADD, ["\\Seen", "work"])
        assert inbox.email_ids(three[1:]) == {uid: first[uid] for uid in three[1:]}
        copied = inbox.copy(three[:2], "other")
        moved = inbox.move(three[2:], "other")
        other = account.mailbox("other")
        expected = dict(zip([*copied.target, *moved.target], [first[uid] for uid in three], strict=True))
        assert other.email_ids(uids(other)) == expected
        again = other.copy(list(moved.target), "INBOX")
        assert inbox.email_ids(uids(inbox)) == {
            three[0]: first[three[0]],
            three[1]: first[three[1]],
            again.target[0]: first[three[2]],
        }
        for query, wanted in (
            (WithEmailId(first[three[2]]), [again.target[0]]),
            (Not(WithEmailId(first[three[2]])), three[:2]),
            (WithEmailId("0" * 24), []),
        ):
            assert list(inbox.search(query, uids(inbox))) == wanted
        # A new message has an identifier of its own, whatever its octets.
        put(account)
        assert inbox.email_ids(uids(inbox)[-1:]).popitem()[1] not in first.values()
