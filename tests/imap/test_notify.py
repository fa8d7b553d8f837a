"""NOTIFY (RFC 5465): what a client learns without asking equals what it would be told if it asked, and has its bounds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import StoreUnavailable
from mailserver.imap.mailbox_filter import MOST_NAMES
from mailserver.imap.notifications import LARGE_PAUSE, MOST_PENDING, RETRY, Notifications
from mailserver.imap.notify_request import MOST_GROUPS
from mailserver.message.render import summarise
from mailserver.store.live import AccountChanges, LiveAccount, followed_annotations
from mailserver.store.live.name_changes import NameChange, NameEvent
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.format import annotation_file
from tests.fakes import Client
from tests.imap.sessions import logged_in, put, selected, services

ALL = (
    b"(MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange)"
)
NAMES = ("INBOX", "a", "b", "a/c", "b/c", "a/c/d", "e")
LIST = re.compile(rb'\* LIST \(([^)]*)\) "/" (?:"([^"]*)"|(\S+))(?: \("OLDNAME" \((?:"([^"]*)"|([^)]*))\)\))?\r\n')
STATUS = re.compile(rb'\* STATUS (?:"([^"]*)"|(\S+)) \(([^)]*)\)\r\n')
METADATA = re.compile(rb'\* METADATA "?([^" ]*)"? /private/comment\r\n')
ITEMS = b"(MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)"


class Picture:
    """What a client knows of the account, by what it has been sent."""

    def __init__(self) -> None:
        self.statuses: dict[bytes, bytes] = {}
        self.subscribed: set[bytes] = set()
        self.mailboxes: set[bytes] = set()
        self.comments: dict[bytes, bytes] = {}
        self.to_fetch: set[bytes] = set()
        """Mailboxes with another comment."""

    def take(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            if status := STATUS.match(line):
                name = status[1] or status[2]
                assert self.statuses.get(name) != status[3], "a status that says nothing new"
                self.statuses[name] = status[3]
            elif listed := LIST.match(line):
                self._list(listed)
            elif metadata := METADATA.match(line):
                self.to_fetch.add(metadata[1])

    def fetch_comments(self, client: Client) -> None:
        for name in self.to_fetch:
            self.comments[name] = comment(client, name)
        self.to_fetch.clear()

    def _list(self, listed: re.Match[bytes]) -> None:
        name, old = listed[2] or listed[3], listed[4] or listed[5]
        if old:
            moved = {each for each in self.mailboxes if each == old or each.startswith(old + b"/")}
            for each in moved:
                self.mailboxes.discard(each)
                self.mailboxes.add(name + each[len(old) :])
            for each in [each for each in self.statuses if each in moved]:
                self.statuses[name + each[len(old) :]] = self.statuses.pop(each)
            self.comments = {
                name + each[len(old) :] if each in moved else each: text for each, text in self.comments.items()
            }
        attributes = listed[1].split()
        if b"\\NonExistent" in attributes:
            self.mailboxes.discard(name)
            self.statuses.pop(name, None)
            self.comments.pop(name, None)
        else:
            self.mailboxes.add(name)
        (self.subscribed.add if b"\\Subscribed" in attributes else self.subscribed.discard)(name)

    @classmethod
    def asked(cls, client: Client) -> Picture:
        """What a client knows that asks for everything."""
        picture = cls()
        picture.take(client.ask(b'l LIST "" * RETURN (SUBSCRIBED STATUS %b)\r\n' % ITEMS))
        for line in client.ask(b'l LIST (SUBSCRIBED) "" *\r\n').splitlines(keepends=True):
            if listed := LIST.match(line):
                picture.subscribed.add(listed[2] or listed[3])
        return picture


def comment(client: Client, name: bytes) -> bytes:
    answer = client.ask(b'g GETMETADATA "%b" /private/comment\r\n' % name)
    return answer.partition(b"/private/comment")[2].partition(b")\r\n")[0]


OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["append", "flag", "expunge", "create", "delete", "subscribe", "unsubscribe"]), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("annotate"), st.sampled_from((*NAMES, '""')), st.sampled_from(("NIL", "one", "two"))),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("settle"), st.just(""), st.just("")),
)  # fmt: skip


def do(client: Client, what: str, name: str, to: str) -> None:
    wire = name.encode("ascii")
    if what in ("create", "delete", "subscribe", "unsubscribe"):
        client.ask(b"x %b %b\r\n" % (what.encode("ascii"), wire))
    elif what == "rename":
        client.ask(b"x RENAME %b %b\r\n" % (wire, to.encode("ascii")))
    elif what == "annotate":
        client.ask(
            b"x SETMETADATA %b (/private/comment %b)\r\n"
            % (wire, to.encode("ascii") if to == "NIL" else b'"%b"' % to.encode("ascii"))
        )
    elif what == "append":
        client.ask(b"x APPEND %b {4+}\r\na:b\n\r\n" % wire)
    else:
        client.ask(b"x SELECT %b\r\n" % wire)
        client.ask(b"x STORE 1 FLAGS (\\Deleted %b)\r\n" % (b"\\Seen" if what == "flag" else b""))
        client.ask(b"x EXPUNGE\r\n" if what == "expunge" else b"x UNSELECT\r\n")


def follow(operations: list[tuple[str, str, str]], follower: Client, other: Client) -> None:
    picture = Picture.asked(other)
    answer = follower.ask(b"n NOTIFY SET STATUS (personal %b)\r\n" % ALL)
    assert answer.endswith(b"n OK NOTIFY completed\r\n")
    told = Picture()
    told.take(answer)
    assert told.statuses == picture.statuses
    for what, name, to in operations:
        if what == "settle":
            follower.settle()
            picture.take(follower.take())
            picture.fetch_comments(other)
        else:
            do(other, what, name, to)
    for _ in range(3):
        follower.settle()
    picture.take(follower.take())
    picture.fetch_comments(other)
    now = Picture.asked(other)
    assert picture.mailboxes == now.mailboxes
    for name, status in now.statuses.items():
        # A new mailbox without messages has no status yet.
        assert picture.statuses.get(name, status if status.startswith(b"MESSAGES 0 UIDNEXT 1 ") else b"") == status
    for name in (b"", *now.statuses):
        assert picture.comments.get(name, b" NIL") == comment(other, name), name
    assert {name for name in picture.subscribed if name in now.mailboxes} == {
        name for name in now.subscribed if name in now.mailboxes
    }


@given(st.lists(OPERATIONS, max_size=25))
def test_what_is_sent_is_what_a_client_would_find_in_memory(operations: list[tuple[str, str, str]]) -> None:
    service = services()
    follow(operations, logged_in(service), logged_in(service))


@settings(max_examples=10)
@given(operations=st.lists(OPERATIONS, max_size=15))
def test_what_is_sent_is_what_a_client_would_find_on_disk(
    operations: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    service = services(store=MaildirStore(tmp_path_factory.mktemp("notify"), summarise))
    follow(operations, logged_in(service), logged_in(service))


def test_own_changes_of_names_are_not_sent_and_those_of_others_at_the_same_time_are() -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (personal %b)\r\n" % ALL)
    other.ask(b"x CREATE theirs\r\n")
    sent = follower.ask(b"x CREATE own\r\nx SUBSCRIBE own\r\nx RENAME own renamed\r\n")
    follower.settle()
    sent += follower.take()
    assert sent.count(b"* LIST") == 1
    assert b'"theirs"' in sent


def test_very_many_changes_end_notification_and_nothing_else() -> None:
    service = services()
    follower, other = selected(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (selected (MessageNew MessageExpunge)) (personal %b)\r\n" % ALL)
    pushes = follower.session.pushes
    assert pushes is not None
    for number in range(MOST_PENDING + 1):
        pushes.name_changed(change(f"n{number}"))
    assert pushes._names == {}, "nothing is kept"
    follower.settle()
    assert follower.take() == b"* OK [NOTIFICATIONOVERFLOW] too many changes: notification has ended\r\n"
    put(other)
    other.ask(b"x CREATE more\r\n")
    follower.settle()
    assert follower.take() == b"", "as with NOTIFY NONE"
    assert follower.ask(b"n NOOP\r\n") == b"n OK NOOP completed\r\n"
    assert b"1 EXISTS" in follower.ask(b"n NOTIFY SET (selected (MessageNew MessageExpunge))\r\n")


def change(name: str) -> NameChange:
    return NameChange(NameEvent.CREATED, name)


def test_a_mailbox_that_changes_often_is_sent_once() -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (personal %b)\r\n" % ALL)
    for _ in range(50):
        put(other, "Sent")
    follower.settle()
    sent = follower.take()
    assert sent.count(b"* STATUS") == 1
    assert b"MESSAGES 50 " in sent


def test_a_command_in_parts_is_not_interrupted() -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (personal %b)\r\n" % ALL)
    follower.send(b"n NO")
    put(other, "Sent")
    follower.settle()
    assert follower.take() == b""
    answer = follower.ask(b"OP\r\n")
    assert answer.startswith(b"n OK NOOP")
    assert b"* STATUS" in answer


def test_the_autologout_is_by_the_last_command() -> None:
    service = services(imap={"timeout": 1900.0})
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (personal %b)\r\n" % ALL)
    for _ in range(3):
        follower.wait(600)
        put(other, "Sent")
        follower.settle()
        assert b"* STATUS" in follower.take()
    follower.wait(200)
    assert b"* BYE" in follower.take()


def test_what_cannot_be_read_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (personal %b)\r\n" % ALL)
    reads: list[int] = []

    async def fail(_self: AccountChanges, *, wait: bool = False) -> None:
        reads.append(wait)
        raise StoreUnavailable("the disk is away")

    with monkeypatch.context() as patched:
        patched.setattr(AccountChanges, "collect", fail)
        put(other, "Sent")
        follower.settle()
        put(other, "Sent")
        follower.settle()
    assert follower.take() == b""
    assert len(reads) <= 2
    assert [event for event, _fields in follower.channel.logged].count("refresh-failed") == 1
    follower.wait(RETRY + 1)
    assert b"MESSAGES 2 " in follower.take()


def test_a_large_account_is_read_again_in_idle_without_another_poke(monkeypatch: pytest.MonkeyPatch) -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    monkeypatch.setattr(AccountChanges, "is_large", True)
    follower.ask(b"n NOTIFY SET (personal %b)\r\n" % ALL)
    follower.send(b"i IDLE\r\n")
    follower.settle()
    follower.wait(1)
    reads: list[bool] = []
    collect = AccountChanges.collect

    async def count(changes: AccountChanges, *, wait: bool = False) -> None:
        reads.append(wait)
        await collect(changes, wait=wait)

    monkeypatch.setattr(AccountChanges, "collect", count)
    follower.wait(60)
    assert reads == [], "without a poke nothing is read"
    for _ in range(2):
        put(other, "Sent")
        follower.settle()
    assert b"MESSAGES 1 " in follower.take()
    follower.wait(LARGE_PAUSE + 0.01)
    assert b"MESSAGES 2 " in follower.take()


def test_a_replacement_by_the_client_itself_is_not_fetched() -> None:
    service = services()
    follower = selected(service)
    put(follower)
    follower.ask(b"n NOTIFY SET (selected (MessageNew (UID) MessageExpunge))\r\n")
    answer = follower.ask(b"n REPLACE 1 INBOX {7+}\r\na:b\r\n\r\n\r\n")
    follower.settle()
    answer += follower.take()
    assert b"EXISTS" in answer
    assert b" FETCH " not in answer


def test_own_messages_of_a_mailbox_that_was_left_are_forgotten() -> None:
    client = selected(services())
    assert b" OK" in client.ask(b"a NOTIFY SET (SELECTED (MessageNew (UID) MessageExpunge))\r\n")
    client.session.note_own_messages(client.session.selected.live.id, [7])
    assert client.session.selected_events.own == {7}
    assert b" OK" in client.ask(b"b UNSELECT\r\n")
    assert not client.session.selected_events.own


def test_the_account_is_followed_no_more_after_the_last_session() -> None:
    service = services()
    accounts = service.accounts
    first, second = logged_in(service), logged_in(service)
    for client in (first, second):
        client.ask(b"n NOTIFY SET (personal %b)\r\n" % ALL)
    assert len(accounts._followed) == 1
    first.ask(b"n NOTIFY NONE\r\n")
    assert len(accounts._followed) == 1
    assert b"OK" in second.ask(b"n UNAUTHENTICATE\r\n")
    assert accounts._followed == {}
    first.ask(b"n NOTIFY SET (inboxes %b)\r\n" % ALL)
    first.hang_up()
    assert accounts._followed == {}


def test_too_many_groups_and_names_are_refused() -> None:
    client = logged_in(services())
    names = b" ".join(b"n%d" % number for number in range(MOST_NAMES + 1))
    assert client.ask(b"n NOTIFY SET (mailboxes (%b) NONE)\r\n" % names).startswith(b"n NO [NOTIFICATIONOVERFLOW] ")
    groups = b" (personal NONE)" * (MOST_GROUPS + 1)
    assert client.ask(b"n NOTIFY SET%b\r\n" % groups).startswith(b"n NO [NOTIFICATIONOVERFLOW] ")
    assert client.ask(b"n NOTIFY SET%b\r\n" % groups[: 16 * MOST_GROUPS]).startswith(b"n OK")


def test_uidonly_and_utf8_names() -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n ENABLE UIDONLY UTF8=ACCEPT\r\nn SELECT INBOX\r\n")
    follower.ask(b"n NOTIFY SET (selected (MessageNew (UID FLAGS) MessageExpunge)) (personal (MailboxName))\r\n")
    put(other)
    other.ask(b'x CREATE "Entw&APw-rfe"\r\n')
    follower.settle()
    sent = follower.take()
    assert b"* 1 UIDFETCH (" in sent
    assert "Entwürfe".encode() in sent


def test_read_only_mailboxes_are_reported() -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n EXAMINE INBOX\r\n")
    follower.ask(b"n NOTIFY SET (selected (MessageNew (UID) MessageExpunge))\r\n")
    put(other)
    follower.settle()
    assert b"* 1 FETCH (UID 1)" in follower.take()


def test_names_below_a_prefix(tmp_path: Path) -> None:
    del tmp_path
    service = services(mail={"separator": ".", "prefix": "INBOX."})
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (subtree INBOX (MessageNew MessageExpunge)) (subtree INBOX.x (MailboxName))\r\n")
    other.ask(b"x CREATE INBOX.x.y\r\nx CREATE INBOX.xy\r\n")
    put(other, "INBOX.Sent")
    follower.settle()
    sent = follower.take()
    assert b'"INBOX.x.y"' in sent
    assert b"INBOX.xy" not in sent
    assert b'* STATUS "INBOX.Sent"' in sent


def test_annotations_that_change_at_the_same_time_are_sent_once_with_all_entries() -> None:
    service = services()
    follower, other = logged_in(service), logged_in(service)
    follower.ask(b"n NOTIFY SET (personal (MailboxMetadataChange)) (inboxes (ServerMetadataChange))\r\n")
    for number in range(3):
        for mailbox in (b"INBOX", b'""'):
            other.ask(b'x SETMETADATA %b (/private/vendor/a/b%d "x")\r\n' % (mailbox, number))
    follower.settle()
    entries = b" ".join(b"/private/vendor/a/b%d" % number for number in range(3))
    assert sorted(follower.take().splitlines()) == [b'* METADATA "" ' + entries, b"* METADATA INBOX " + entries]


def test_changes_are_kept_under_the_new_name_of_a_mailbox() -> None:
    service = services()
    follower, third, other = logged_in(service), logged_in(service), logged_in(service)
    other.ask(b"x CREATE old\r\n")
    for client in (follower, third):
        client.ask(b"n NOTIFY SET (personal (MailboxMetadataChange MessageNew MessageExpunge))\r\n")
    # The third session reads the changes while the first one is in a command.
    follower.send(b"n NO")
    put(other, "old")
    other.ask(b'x SETMETADATA old (/private/comment "x")\r\n')
    third.settle()
    other.ask(b"x RENAME old new\r\n")
    third.settle()
    sent = follower.ask(b"OP\r\n")
    follower.settle()
    sent += follower.take()
    assert b'* STATUS "new" (MESSAGES 1 ' in sent
    assert b'* METADATA "new" /private/comment\r\n' in sent


def test_more_annotations_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_annotations, "MOST_ENTRIES", 3)
    service = services()
    follower, third, other = logged_in(service), logged_in(service), logged_in(service)
    other.ask(b"x CREATE a\r\n")
    follower.ask(b"n NOTIFY SET (personal (MailboxMetadataChange MessageNew MessageExpunge))\r\n")
    third.ask(b"n NOTIFY SET (personal (MessageNew MessageExpunge))\r\n")
    for number in range(4):
        other.ask(b'x SETMETADATA %b (/private/vendor/a/b%d "x")\r\n' % (b"a" if number % 2 else b"INBOX", number))
    follower.settle()
    assert b"* OK [NOTIFICATIONOVERFLOW] " in follower.take()
    put(other, "a")
    third.settle()
    assert b'* STATUS "a" (MESSAGES 1 ' in third.take(), "other sessions go on"
    refused = follower.ask(b"n NOTIFY SET (personal (MailboxMetadataChange))\r\n")
    assert refused.startswith(b"n NO [NOTIFICATIONOVERFLOW] ")
    assert b"n OK" in follower.ask(b"n NOTIFY SET (personal (ServerMetadataChange MailboxName))\r\n")


def test_unchanged_annotations_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = services(store=MaildirStore(tmp_path, summarise))
    follower, other = logged_in(service), logged_in(service)
    other.ask(b'x SETMETADATA INBOX (/private/comment "x")\r\n')
    follower.ask(b"n NOTIFY SET (personal (MailboxMetadataChange MessageNew MessageExpunge))\r\n")
    reads: list[str] = []
    read = annotation_file.read
    monkeypatch.setattr(annotation_file, "read", lambda path: reads.append(path) or read(path))
    for _ in range(3):
        put(other)
        follower.settle()
    assert follower.take().count(b"* STATUS") == 3
    assert reads == []


def test_many_mailboxes_are_chosen_in_the_turn_of_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in(services())
    in_turn, chosen = [False], []
    run, needs, follows = LiveAccount.run, Notifications.needs, Notifications.follows

    def watched_run(account, operation):
        def operate():
            in_turn[0] = True
            try:
                return operation()
            finally:
                in_turn[0] = False

        return run(account, operate)

    def watched(choose):
        def choose_and_note(notifications, name):
            chosen.append(in_turn[0])
            return choose(notifications, name)

        return choose_and_note

    monkeypatch.setattr(LiveAccount, "run", watched_run)
    monkeypatch.setattr(Notifications, "needs", watched(needs))
    monkeypatch.setattr(Notifications, "follows", watched(follows))
    for number in range(3):
        client.ask(b"c CREATE m%d\r\n" % number)
    for request in (b"NOTIFY SET", b"NOTIFY SET STATUS"):
        chosen.clear()
        client.ask(b"n %b (personal %b)\r\n" % (request, ALL))
        assert chosen
        assert all(chosen)
