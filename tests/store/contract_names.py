"""Of the contract: mailboxes, their names, subscriptions, special use."""

from __future__ import annotations

import pytest

from mailserver.errors import (
    BadMailboxName,
    Cannot,
    MailboxExists,
    MailboxHasChildren,
    NoSuchMailbox,
    TooManyAnnotations,
)
from mailserver.store.time_slice import TimeSlice
from tests.store.samples import ADD, USER, content, flags, message, names, put, uids


class Names:
    """Mixed into StoreContract."""

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
        assert len({account.mailbox(name).id for name in names(account)}) == len(account.mailboxes())

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
        for use in (account.mailbox, account.status, account.delete):
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

    def test_the_statuses_of_many_are_those_of_each(self, make_store):
        account = make_store().account(USER)
        names = [f"m{number}" for number in range(60)]
        for number, name in enumerate(names):
            account.create(name)
            if number % 7 == 0:
                for _message in range(number % 3 + 1):
                    put(account, name)
        asked = ["nowhere", "INBOX", *names, "a/b"]
        for _ in range(3):
            found = {}
            while len(found) < len(asked):
                found |= account.statuses([name for name in asked if name not in found], TimeSlice(20))
            assert isinstance(found.pop("nowhere"), NoSuchMailbox)
            assert isinstance(found.pop("a/b"), NoSuchMailbox)
            assert found == {name: account.status(name) for name in ("INBOX", *names)}
            mailbox = account.mailbox("m14")
            mailbox.store_flags(uids(mailbox)[:1], ADD, ["\\Seen", "\\Deleted"])
            put(account, "m1")
            mailbox = account.mailbox("m7")
            mailbox.claim_recent()
            mailbox.expunge(uids(mailbox), only_deleted=False)
        account.close()

    # --- annotations

    def test_annotations_are_kept_by_mailbox_and_for_the_account(self, make_store):
        account = make_store().account(USER)
        account.create("a")
        assert account.annotations("a") == account.annotations(None) == {}
        made = account.annotate("a", {"/private/x": b"1", "/shared/y": b"\x00\xff\r\n", "/shared/z": None}, 10)
        assert made.mailbox == account.mailbox("a").id
        assert list(made.entries) == ["/private/x", "/shared/y"]
        assert account.annotate(None, {"/private/x": b""}, 10).mailbox is None
        account.close()
        account = make_store().account(USER)
        assert account.annotations("a") == {"/private/x": b"1", "/shared/y": b"\x00\xff\r\n"}
        assert account.annotations(None) == {"/private/x": b""}
        assert account.annotations("INBOX") == {}
        assert account.annotations_stamp("INBOX") is None
        stamps = [account.annotations_stamp(name) for name in ("a", None)]
        assert [account.annotations_stamp(name) for name in ("a", None)] == stamps
        assert list(account.annotate("a", {"/private/x": None, "/shared/y": b"2"}, 10).entries) == [
            "/private/x",
            "/shared/y",
        ]
        assert account.annotations("a") == {"/shared/y": b"2"}
        assert account.annotations_stamp("a") != stamps[0]
        account.close()

    def test_annotations_are_bounded_all_or_none(self, account):
        account.annotate("INBOX", {"/private/a": b"1", "/private/b": b"2"}, 2)
        with pytest.raises(TooManyAnnotations):
            account.annotate("INBOX", {"/private/a": b"9", "/private/c": b"3"}, 2)
        assert account.annotations("INBOX") == {"/private/a": b"1", "/private/b": b"2"}
        account.annotate("INBOX", {"/private/a": None, "/private/c": b"3"}, 2)
        # A bound that was lowered refuses no change of what there is.
        assert account.annotate("INBOX", {"/private/b": b"4"}, 1) is not None
        assert account.annotations("INBOX") == {"/private/b": b"4", "/private/c": b"3"}

    def test_annotations_follow_renames_and_end_with_the_mailbox(self, account):
        account.create("a")
        account.create("a/b")
        account.annotate("a/b", {"/shared/x": b"b"}, 10)
        account.rename("a", "c")
        assert account.annotations("c/b") == {"/shared/x": b"b"}
        assert account.annotations("c") == {}
        account.delete("c/b")
        with pytest.raises(NoSuchMailbox):
            account.annotations("c/b")
        with pytest.raises(NoSuchMailbox):
            account.annotate("c/b", {"/shared/x": b"b"}, 10)
        account.create("c/b")
        assert account.annotations("c/b") == {}
        account.annotate("INBOX", {"/shared/x": b"inbox"}, 10)
        put(account)
        account.rename("INBOX", "old")
        assert account.annotations("old") == account.annotations("INBOX") == {"/shared/x": b"inbox"}

    def test_a_changed_annotation_raises_the_modseq(self, account):
        put(account)
        before = account.status("INBOX").highest_modseq
        mailbox = account.mailbox("INBOX")
        account.annotate("INBOX", {"/shared/x": b"1"}, 10)
        after = account.status("INBOX").highest_modseq
        assert after > before
        changes = mailbox.changes_since(before)
        assert (changes.upto, list(changes.rows), list(changes.expunged)) == (after, [], [])
        assert account.annotate("INBOX", {"/shared/x": b"1", "/shared/y": None}, 10) is None
        assert account.status("INBOX").highest_modseq == after
        account.annotate(None, {"/private/x": b"1"}, 10)
        assert account.status("INBOX").highest_modseq == after
