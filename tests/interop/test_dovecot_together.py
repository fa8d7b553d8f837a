"""Dovecot and ours on the same Maildirs: taking turns, and both at once, each with sessions that stay open.

Both run as the mail's owner. What one does, the other tells the same way: UIDVALIDITY, UIDs, flags, dates, sizes,
folders, subscriptions and POP3 unique-ids; so nothing is new to a client that changes from one to the other.
"""

from __future__ import annotations

import contextlib
import imaplib
import poplib
import random
import re
import select
import smtplib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.dovecot import Dovecot, need
from tests.server import Server

pytestmark = pytest.mark.interop

PATIENCE = 20.0
"""Seconds after which something that should come at once is taken for lost."""
LATENCY = 0.1
"""Seconds: inotify's names are read every 20 ms, and before that a FETCH meets files that the other server has removed."""
PASSWORD = "secret"
USERS = [
    f"{name}@example.test"
    for name in ("turns1", "turns2", "pop1", "pop2", "random1", "random2", "idle1", "idle2", "both")
]
SPECIAL = {"Drafts": "Drafts", "Sent": "Sent", "Junk": "Junk", "Trash": "Trash", "Archive": "Archive"}
MAILBOXES = "".join(
    f"  mailbox {name} {{\n    special_use = \\{use}\n    auto = create\n  }}\n" for use, name in SPECIAL.items()
)


class Imap(imaplib.IMAP4):
    """A client of either server; every command must succeed."""

    def __init__(self, port: int, user: str, mailbox: str | None = None) -> None:
        super().__init__("127.0.0.1", port, timeout=PATIENCE)
        self.do("LOGIN", user, PASSWORD)
        self.state = "AUTH"
        if mailbox is not None:
            self.do("SELECT", mailbox)
            self.state = "SELECTED"

    def do(self, name: str, *arguments: str, status: str = "OK") -> list[bytes]:
        """The untagged responses, whole lines without `* `, and the tagged text last."""
        tag = self._new_tag()
        self.send(b" ".join([tag, name.encode(), *(word.encode() for word in arguments)]) + b"\r\n")
        lines = self.until(tag + b" ")
        assert lines[-1].startswith(tag + b" " + status.encode()), (name, arguments, lines)
        return [line.removeprefix(b"* ").removeprefix(tag + b" ").rstrip(b"\r\n") for line in lines]

    def until(self, start: bytes) -> list[bytes]:
        lines = []
        while not lines or not lines[-1].startswith(start):
            line = self.readline()
            assert line, lines
            lines.append(line)
        return lines

    def put(self, subject: str, mailbox: str = "INBOX", flags: str = "()") -> tuple[int, int]:
        """APPEND; UIDVALIDITY and UID as told."""
        data = f"From: a@example.org\r\nSubject: {subject}\r\n\r\n{subject}\r\n"
        answer = self.do("APPEND", mailbox, flags, f'"07-Feb-2023 21:52:25 +0100" {{{len(data)}+}}\r\n{data}')[-1]
        found = re.search(rb"\[APPENDUID (\d+) (\d+)\]", answer)
        assert found, answer
        return int(found[1]), int(found[2])

    def messages(self) -> dict[int, tuple[frozenset[str], str, int]]:
        """UID -> flags, date, size, of the selected mailbox."""
        found = {}
        for line in self.do("UID", "FETCH", "1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE)"):
            if b" FETCH (" not in line or b"RFC822.SIZE" not in line:
                continue
            text = line.decode()
            uid, size = re.search(r"\bUID (\d+)", text), re.search(r"RFC822\.SIZE (\d+)", text)
            flags, date = re.search(r"FLAGS \(([^)]*)\)", text), re.search(r'INTERNALDATE "([^"]*)"', text)
            assert uid, text
            assert size, text
            assert flags, text
            assert date, text
            seconds = imaplib.Internaldate2tuple(f'INTERNALDATE "{date[1]}"'.encode())
            words = frozenset(flags[1].split()) - {"\\Recent"}
            found[int(uid[1])] = words, str(time.mktime(seconds)), int(size[1])
        return found

    def idle(self) -> None:
        """Begin to."""
        self.send(b"i IDLE\r\n")
        assert self.readline().startswith(b"+")

    def told(self, pattern: bytes) -> None:
        """In IDLE: wait for a line of that form."""
        lines = []
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            lines.append(self.readline())
            if re.match(pattern, lines[-1]):
                return
        raise AssertionError(f"{pattern!r} did not come: {lines}")

    def done(self) -> None:
        self.send(b"DONE\r\n")
        self.until(b"i OK")


class ServerOfOwner(Server):
    """Run by the mail's owner, as files must be Dovecot's too; able to read an interpreter that root alone may."""

    def command(self, *options: str) -> list[str]:
        powers = "+dac_override,+dac_read_search"
        owner = [
            "--reuid=nobody",
            "--regid=nogroup",
            "--clear-groups",
            f"--inh-caps={powers}",
            f"--ambient-caps={powers}",
        ]
        return ["setpriv", *owner, *super().command(*options)]


Facts = dict[str, tuple[int, int, dict[int, tuple[frozenset[str], str, int]]]]


@frozen
class Both:
    """The two servers."""

    ours: Server
    theirs: Dovecot

    def ports(self, first: str) -> tuple[int, int]:
        """IMAP ports, that of `first` first."""
        found = self.ours.port("imap"), self.theirs.ports["imap"]
        return found if first == "ours" else (found[1], found[0])

    def same(self, user: str) -> Facts:
        """What both tell of an account, which must be the same."""
        # Dovecot makes the special folders that it lists when they are first opened.
        theirs, ours = (facts(port, user) for port in self.ports("theirs"))
        assert ours == theirs
        return ours[0]


def facts(port: int, user: str) -> tuple[Facts, set[str], dict[str, set[str]]]:
    """Mailboxes with UIDVALIDITY, UIDNEXT and messages; subscriptions; attributes of special folders."""
    client = Imap(port, user)
    mailboxes: Facts = {}
    special: dict[str, set[str]] = {}
    for line in client.do("LIST", '""', "*"):
        found = re.fullmatch(r'LIST \(([^)]*)\) "." (.*)', line.decode())
        if found and "\\noselect" not in found[1].lower():
            name = found[2].strip('"')
            special[name] = {word for word in found[1].split() if word[1:] in SPECIAL}
            told = b" ".join(client.do("EXAMINE", f'"{name}"'))
            validity, following = re.search(rb"UIDVALIDITY (\d+)", told), re.search(rb"UIDNEXT (\d+)", told)
            assert validity, told
            assert following, told
            mailboxes[name] = int(validity[1]), int(following[1]), client.messages()
    subscribed = {
        re.sub(r'LSUB \([^)]*\) "." ', "", line.decode()).strip('"') for line in client.do("LSUB", '""', "*")[:-1]
    }
    client.do("LOGOUT")
    return mailboxes, subscribed, special


@contextlib.contextmanager
def started(*, mail: str = "", namespace: str = "", more: str = "") -> Iterator[Both]:
    """Both on the same accounts. `mail`: keys of our [mail]; `namespace` and `more`: settings of Dovecot's."""
    need("dovecot packages")
    # Not below pytest's directory: that is root's alone, and the mail's owner is another user.
    with tempfile.TemporaryDirectory(prefix="mailserver-together-") as name, contextlib.ExitStack() as running:
        place = Path(name)
        place.chmod(0o755)
        ours = ServerOfOwner(place / "ours", edit={'user = "root"': 'user = "nobody"', "[mail]\n": f"[mail]\n{mail}"})
        for protocol in ("imap", "pop3"):
            head = f'protocol = "{protocol}"\nport = {ours.port(protocol)}\n'
            ours.replace(
                f'{head}addresses = ["127.0.0.1", "::1"]\n',
                f'{head}addresses = ["127.0.0.1"]\nallow_cleartext = true\n',
            )
        with (ours.dir / "users").open("a") as users:
            users.writelines(f"{user}:{{PLAIN}}{PASSWORD}\n" for user in USERS)
        theirs = Dovecot(
            place / "dovecot",
            ours.dir / "mail",
            dict.fromkeys(USERS, PASSWORD),
            more=f"namespace inbox {{\n{namespace}{MAILBOXES}}}\nprotocol lmtp {{\n  auth_username_format = %{{user}}\n}}\n{more}",
        )
        theirs.own(ours.dir)
        running.enter_context(theirs)
        running.enter_context(ours)
        yield Both(ours, theirs)
        assert "bug session=" not in ours.log, ours.log[-6000:]
        assert "Unhandled" not in ours.log, ours.log[-6000:]
        for word in ("Error", "Panic", "Fatal", "Warning"):
            assert word not in theirs.log, theirs.log[-6000:]


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with started() as pair:
        yield pair


def fill(client: Imap) -> None:
    """A bit of everything."""
    for number in range(6):
        client.put(f"n{number}", flags=("()", "(\\Seen)", "(\\Flagged work $Forwarded)")[number % 3])
    for name in ('"Entw&APw-rfe"', '"a b"', "Sent/2024/01", '"Tom &- Jerry"', "gone", "old/below"):
        client.do("CREATE", name)
    client.do("SELECT", "INBOX")
    client.do("COPY", "1:3", '"Entw&APw-rfe"')
    client.do("UID", "STORE", "2,4", "+FLAGS.SILENT", "(\\Deleted junk)")
    client.do("UID", "STORE", "5", "FLAGS", "(\\Answered \\Draft)")
    client.do("EXPUNGE")
    client.do("UID", "MOVE", "6", '"a b"')
    for name in ('"Entw&APw-rfe"', "Sent/2024/01", "INBOX", "gone"):
        client.do("SUBSCRIBE", name)
    client.do("UNSUBSCRIBE", "INBOX")
    client.do("DELETE", "gone")
    client.do("RENAME", "old", '"new &AOQ-"')
    client.do("CREATE", "a.b", status="NO")


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_one_fills_and_the_other_goes_on(both: Both, first: str) -> None:
    user = "turns1@example.test" if first == "ours" else "turns2@example.test"
    one, other = both.ports(first)
    client = Imap(one, user)
    fill(client)
    client.do("LOGOUT")
    before = both.same(user)
    assert set(before) >= {"INBOX", "Entw&APw-rfe", "a b", "Sent/2024/01", "Tom &- Jerry", "new &AOQ-/below"}
    assert set(before["INBOX"][2]) == {1, 3, 5}
    client = Imap(other, user, "INBOX")
    assert client.put("from the other", flags="(\\Seen)") == (before["INBOX"][0], before["INBOX"][1])
    client.do("UID", "STORE", "3", "+FLAGS", "(other)")
    client.do("UID", "STORE", "1", "-FLAGS", "(\\Seen)")
    client.do("UID", "COPY", "3", '"a b"')
    client.do("UNSUBSCRIBE", "Sent/2024/01")
    client.do("SUBSCRIBE", '"a b"')
    client.do("LOGOUT")
    after = both.same(user)
    assert {name: box[0] for name, box in after.items()} == {name: box[0] for name, box in before.items()}
    assert after["INBOX"][2][3][0] == before["INBOX"][2][3][0] | {"other"}
    assert set(after["INBOX"][2]) == {1, 3, 5, before["INBOX"][1]}


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_nothing_is_new_to_a_pop3_client(both: Both, first: str) -> None:
    """Unique-ids in Dovecot's default format (README; RFC 1939 7: they stay the same across sessions)."""
    user = "pop1@example.test" if first == "ours" else "pop2@example.test"
    client = Imap(both.ports(first)[0], user)
    fill(client)
    client.do("LOGOUT")
    told = []
    ports = both.ours.port("pop3"), both.theirs.ports["pop3"]
    for port in ports if first == "ours" else reversed(ports):
        client = poplib.POP3("127.0.0.1", port, timeout=PATIENCE)
        client.user(user)
        client.pass_(PASSWORD)
        told.append((client.uidl()[1], client.list()[1], client.stat()))
        client.quit()
    assert told[0] == told[1]
    assert len(told[0][0]) == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_random_turns_of_open_sessions(both: Both, seed: int) -> None:
    """Sessions that stay open see what the other server did; nobody loses, doubles or renumbers anything."""
    user = f"random{seed}@example.test"
    dice = random.Random(seed)
    sessions = [Imap(port, user, "INBOX") for port in both.ports("ours")]
    sessions[0].do("CREATE", "there")
    last: Facts = {}
    for turn in range(40):
        client = dice.choice(sessions)
        time.sleep(LATENCY)
        client.do("NOOP")
        uids = sorted(client.messages())
        some = ",".join(map(str, dice.sample(uids, min(len(uids), 2))))
        what = dice.randrange(7) if uids else 0
        if what <= 1:
            client.put(f"turn {turn}", flags=dice.choice(["()", "(\\Seen one)", "(two three)"]))
        elif what == 2:
            client.do("UID", "STORE", some, dice.choice(["+", "-", ""]) + "FLAGS", "(\\Flagged one four)")
        elif what == 3:
            client.do("UID", "COPY", some, "there")
        elif what == 4:
            client.do("UID", "MOVE", some.split(",")[0], "there")
        elif what == 5:
            client.do("UID", "STORE", some.split(",")[0], "+FLAGS", "(\\Deleted)")
            client.do("EXPUNGE")
        else:
            client.do("UID", "COPY", some.split(",")[0], "INBOX")
        if turn % 4 == 3:
            time.sleep(LATENCY)
            for each in sessions:
                each.do("NOOP")
            now = both.same(user)
            assert all(each.messages() == now["INBOX"][2] for each in sessions)
            for name, (validity, following, _messages) in last.items():
                assert now[name][0] == validity
                assert now[name][1] >= following
            last = now
    for each in sessions:
        each.do("LOGOUT")


@pytest.mark.parametrize("idling", ["ours", "theirs"])
def test_an_idle_session_hears_of_the_others_changes(both: Both, idling: str) -> None:
    user = "idle1@example.test" if idling == "ours" else "idle2@example.test"
    here, there = both.ports(idling)
    other = Imap(there, user, "INBOX")
    other.put("one")
    other.put("two")
    idle = Imap(here, user, "INBOX")
    idle.idle()
    _validity, uid = other.put("three")
    idle.told(rb"\* 3 EXISTS")
    other.do("UID", "STORE", str(uid), "+FLAGS", "(\\Seen work)")
    idle.told(rb"\* 3 FETCH \(.*\\Seen")
    other.do("UID", "COPY", str(uid), "INBOX")
    idle.told(rb"\* 4 EXISTS")
    other.do("NOOP")
    other.do("STORE", "2", "+FLAGS", "(\\Deleted)")
    idle.told(rb"\* 2 FETCH \(.*\\Deleted")
    other.do("EXPUNGE")
    idle.told(rb"\* 2 EXPUNGE")
    if idling == "ours":
        with smtplib.LMTP("127.0.0.1", both.theirs.ports["lmtp"]) as delivery:
            delivery.sendmail("a@example.org", [user], b"Subject: by LMTP\r\n\r\nx\r\n")
        idle.told(rb"\* 4 EXISTS")
    idle.done()
    idle.do("NOOP")
    other.do("NOOP")
    assert idle.messages() == other.messages() == both.same(user)["INBOX"][2]
    idle.do("LOGOUT")
    other.do("LOGOUT")


def test_both_at_once(both: Both) -> None:
    """Two writers on each server, and a session that only listens: every message has the UID that it was told to have."""
    user = "both@example.test"
    listener = Imap(both.ours.port("imap"), user, "INBOX")
    listener.idle()
    told: dict[int, str] = {}
    gone: set[int] = set()
    failures: list[BaseException] = []

    def write(port: int, name: str) -> None:
        try:
            dice = random.Random(name)
            client = Imap(port, user, "INBOX")
            mine: list[int] = []
            for number in range(25):
                _validity, uid = client.put(f"{name}-{number}")
                assert uid not in told
                told[uid] = f"{name}-{number}"
                mine.append(uid)
                client.do("UID", "STORE", str(dice.choice(mine)), "+FLAGS.SILENT", f"(\\Seen {name})")
                if number % 5 == 4:
                    uid = mine.pop(dice.randrange(len(mine)))
                    client.do("UID", "STORE", str(uid), "+FLAGS.SILENT", "(\\Deleted)")
                    client.do("UID", "EXPUNGE", str(uid))
                    gone.add(uid)
            client.do("LOGOUT")
        except BaseException as error:
            failures.append(error)
            raise

    writers = [
        threading.Thread(target=write, args=(port, f"{name}{number}"))
        for name, port in zip(("ours", "theirs"), both.ports("ours"), strict=True)
        for number in range(2)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if select.select([listener.socket()], [], [], 0.1)[0]:
            assert listener.readline().startswith(b"* ")
    for writer in writers:
        writer.join()
    assert not failures
    listener.done()
    listener.do("NOOP")
    box = both.same(user)["INBOX"][2]
    assert listener.messages() == box
    assert set(box) == set(told) - gone
    assert len(told) == 100
    subjects = {}
    for uid in box:
        lines = listener.do("UID", "FETCH", str(uid), "BODY.PEEK[HEADER.FIELDS (SUBJECT)]")
        subjects[uid] = next(line for line in lines if line.startswith(b"Subject: ")).decode()[9:]
    assert subjects == {uid: told[uid] for uid in box}
    listener.do("LOGOUT")


@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("settings", "names", "on_disk"),
    [
        (
            {"mail": "utf8_names = true\n", "more": "mailbox_list_utf8 = yes\n"},
            ("Entw&APw-rfe/&AOQ- b", "&ZeVnLIqe-"),
            (".Entwürfe.ä b", ".日本語"),
        ),
        (
            {"mail": 'separator = "."\nprefix = "INBOX"\n', "namespace": "  separator = .\n  prefix = INBOX.\n"},
            ("INBOX.Entw&APw-rfe.&AOQ- b", "INBOX.old.2023"),
            (".Entw&APw-rfe.&AOQ- b", ".old.2023"),
        ),
        (
            {"mail": 'escape = "%"\n', "more": "mailbox_list_storage_escape_char = %\n"},
            ("Projekt v1.2/T&APw-r.&AOQ-", "~a/~b%2e&-.", "..", "a/."),
            (".Projekt v1%2e2.T&APw-r%2e&AOQ-", ".%7ea.%7eb%252e&-%2e", ".%2e%2e", ".a.%2e"),
        ),
        (
            {
                "mail": 'separator = "."\nprefix = "INBOX."\nescape = "^"\nutf8_names = true\n',
                "namespace": "  separator = .\n  prefix = INBOX.\n",
                "more": "mailbox_list_storage_escape_char = ^\nmailbox_list_utf8 = yes\n",
            },
            ("INBOX.a/b.T&APw-r/", "INBOX.~c^d./x"),
            (".a^2fb.Tür^2f", ".^7ec^5ed.^2fx"),
        ),
    ],
    ids=["UTF-8 on disk", "prefix", "escape", "escaped slashes"],
)
def test_names_of_other_layouts(
    first: str, settings: dict[str, str], names: tuple[str, ...], on_disk: tuple[str, ...]
) -> None:
    """RFC 2342, RFC 3501 5.1.3: whatever Dovecot's namespace is like, clients see the same names from both."""
    user = "turns1@example.test"
    with started(**settings) as pair:
        one, other = pair.ports(first)
        client = Imap(one, user)
        for name in names:
            client.do("CREATE", f'"{name}"')
            client.put("in it", f'"{name}"', "(\\Seen kept)")
            client.do("SUBSCRIBE", f'"{name}"')
        client.do("LOGOUT")
        before = pair.same(user)
        client = Imap(other, user)
        client.do("UNSUBSCRIBE", f'"{names[0]}"')
        client.do("RENAME", f'"{names[0]}"', f'"{names[0]}2"')
        client.do("LOGOUT")
        after = pair.same(user)
        assert set(names) <= set(before)
        assert after[f"{names[0]}2"][2] == before[names[0]][2]
        directory = pair.ours.maildir(user)
        assert {f"{on_disk[0]}2", on_disk[1]} <= {path.name for path in directory.iterdir()}
