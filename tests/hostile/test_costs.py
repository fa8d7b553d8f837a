"""Every command that costs more than a constant, in its hostile case: another client's NOOP is answered meanwhile.

`conftest.Watcher` sends these NOOPs around each test, and measures them. The table is by the rows of the protocols' tables.
"""

from __future__ import annotations

import contextlib
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.http.routes import ROUTES
from mailserver.imap.append.catenate import MOST_URLS
from mailserver.imap.commands import TABLE
from mailserver.imap.search.contexts import MAX_CONTEXTS
from mailserver.pop3 import commands as pop3_commands
from mailserver.session.cost import Cost
from mailserver.smtp import tables
from tests.hostile.conftest import LARGEST
from tests.hostile.wire import Client, log_in, plain
from tests.server import Server
from tests.sweeps import choose

SCALE = int(os.environ.get("MAILSERVER_SCALE", "1"))
"""Of mailboxes: larger in `make soak`."""
MANY = 1000 * SCALE
"""Messages of a mailbox."""
FOLDERS = min(500 * SCALE, 8000)
DEEP = 95
"""Levels of a message."""
NAME = "a" * 60
LONG_PATTERN = b"*a" * 500 + b"b"
"""Matches nothing, and that is found out late."""
MANY_PATTERNS = tuple(b"*%da%%" % number for number in range(5000))
LONGER_PATTERN = b"*a" * 25_000
"""Longer than any name."""
KEYWORDS = b" ".join(b"keyword%d" % number for number in range(20))


def rows() -> dict[str, Cost]:
    """Every row of every protocol."""
    found = {f"IMAP {spec.name}": spec.cost for spec in TABLE.values()}
    found |= {f"POP3 {name.decode()}": spec.cost for name, spec in pop3_commands.TABLE.commands.items()}
    found |= {f"submission {name.decode()}": spec.cost for name, spec in tables.SUBMISSION.commands.items()}
    found |= {f"LMTP {name.decode()}": spec.cost for name, spec in tables.LMTP.commands.items()}
    return found | {f"HTTP {route.path}": route.cost for route in ROUTES}


def large_message() -> bytes:
    """As large as may be: multiparts within each other, whose ends stand far away, and then lines."""
    head = b"From: cost@example.test\r\nTo: cost@example.test\r\nSubject: large\r\nMIME-Version: 1.0\r\n"
    start = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(DEEP)
    )
    end = b"".join(b"\r\n--b%d--\r\n" % level for level in reversed(range(DEEP)))
    line = b".x: y b0 --b0-\r\n"
    room = LARGEST - len(head) - len(start) - len(end) - 64 * 1024
    return head + start + b"\r\n" + line * (room // len(line)) + end


def small_messages(path: Path, count: int) -> None:
    """Files that nobody has seen."""
    path.mkdir(parents=True, exist_ok=True)
    for name in ("new", "cur", "tmp"):
        (path / name).mkdir(exist_ok=True)
    for number in range(count):
        (path / "new" / f"1700000000.M{number}P1.host").write_bytes(
            b"From: a@example.test\r\nSubject: %d\r\n" % number + b"a:b\r\n" * 20 + b"\r\ntext %d\r\n" % number
        )


class World:
    """The account, and clients of it."""

    def __init__(self, server: Server, user: str) -> None:
        self.server = server
        self.user = user
        self.home = server.maildir(user)
        self.fresh = 0

    def imap(self, mailbox: bytes = b"") -> Client:
        client = log_in(self.server, "imaps", self.user)
        if mailbox:
            assert client.command(b"SELECT " + mailbox)[-1].startswith(b"OK")
        return client

    def pop3(self) -> Client:
        return log_in(self.server, "pop3s", self.user)

    def remove_large_messages(self) -> None:
        """Each row begins with the same INBOX: a search through the large messages of all rows before takes minutes."""
        with self.imap(b"INBOX") as client:
            ok(client, b"UID SEARCH RETURN (SAVE) LARGER 100000", b"UID STORE $ +FLAGS.SILENT (\\Deleted)", b"EXPUNGE")

    def unseen_mailbox(self) -> bytes:
        """One that nobody has looked at yet."""
        self.fresh += 1
        small_messages(self.home / f".Fresh{self.fresh}", MANY)
        return b"Fresh%d" % self.fresh


@pytest.fixture(scope="module")
def world(server: Server) -> World:
    """An account with an INBOX of many messages and many mailboxes."""
    user = "u027@example.test"
    world = World(server, user)
    small_messages(world.home, MANY)
    for number in range(FOLDERS):
        folder = world.home / f".{NAME}{number}"
        folder.mkdir()
        for name in ("new", "cur", "tmp"):
            (folder / name).mkdir()
    (world.home / "subscriptions").write_text("".join(f"{NAME}{number}\n" for number in range(FOLDERS)))
    return world


def ok(client: Client, *commands: bytes) -> None:
    """Each is carried out, or refused for its cost."""
    for command in commands:
        answer = client.command(command)[-1]
        assert answer.startswith((b"OK", b"NO [LIMIT]")), (command[:100], answer)


def with_copies(world: World, then: bytes) -> None:
    """A mailbox of copies, all of which are marked and expunged."""
    target = b"Copies%d" % world.fresh
    world.fresh += 1
    with world.imap(b"INBOX") as client:
        ok(client, b"CREATE " + target, b"COPY 1:* " + target, b"SELECT " + target)
        ok(client, b"STORE 1:* +FLAGS.SILENT (\\Deleted)", then)


def changed_by_another(world: World, ask: Callable[[Client], None]) -> None:
    """Every message is changed by one session, then another one asks."""
    with world.imap(b"INBOX") as other, world.imap(b"INBOX") as client:
        for sign in (b"+", b"-"):
            ok(other, b"STORE 1:* %bFLAGS.SILENT (%b)" % (sign, KEYWORDS))
            ask(client)


def idle(client: Client) -> None:
    client.send(b"i IDLE\r\n")
    while not client.reply().startswith(b"* %d FETCH" % MANY):
        pass
    client.send(b"DONE\r\n")
    while not client.reply().startswith(b"i OK"):
        pass


def notify(world: World) -> None:
    """All mailboxes of the account are followed by several sessions, and then most of them change."""
    everything = b"(MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange)"
    names = b" ".join(b"%b%d" % (NAME.encode("ascii"), number) for number in range(900))
    with world.imap(b"INBOX") as other, world.imap() as first, world.imap() as second, world.imap() as third:
        ok(first, b"NOTIFY SET STATUS (personal %b)" % everything, b"NOTIFY SET (personal %b)" % everything)
        ok(second, b"NOTIFY SET (subtree (%b) %b) (subscribed %b)" % (names, everything, everything))
        ok(third, b"NOTIFY SET STATUS" + b" (personal %b)" % everything * 99)
        elsewhere = [b"(subtree (x%d y%d z%d) %b)" % (each, each, each, everything) for each in range(99)]
        ok(third, b"NOTIFY SET (personal %b) " % everything + b" ".join(elsewhere))
        for number in range(FOLDERS):
            ok(other, b"COPY 1 %b%d" % (NAME.encode("ascii"), number))
        values = b" ".join(b'/private/vendor/a/%d "x"' % number for number in range(10))
        ok(other, *(b"SETMETADATA %b%d (%b)" % (NAME.encode("ascii"), number, values) for number in range(50)))
        ok(other, *(b"CREATE notified/%d" % number for number in range(50)), b"RENAME notified renamed")
        ok(first, b"NOOP")


def rename(world: World) -> None:
    """A name with all that is below it, and INBOX with its messages."""
    with world.imap() as client:
        ok(client, *(b"CREATE deep/%d" % number for number in range(200)), b"RENAME deep moved")
        ok(client, b"RENAME INBOX %b" % b"was%d" % world.fresh)
        ok(client, b"SELECT was%d" % world.fresh, b"MOVE 1:* INBOX")
    world.fresh += 1


def append(world: World) -> None:
    with world.imap() as client:
        answer = client.command(b"APPEND INBOX {}", large_message())[-1]
        assert answer.startswith(b"OK"), answer


def replace(world: World) -> None:
    """A large message in the place of a large one; then as many parts of it as a command may name, each deep within it."""
    append(world)
    with world.imap(b"INBOX") as client:
        *untagged, answer = client.command(b"REPLACE * INBOX {}", large_message())
        assert answer.startswith(b"OK"), answer
        [uid] = [line.split()[4].rstrip(b"]") for line in untagged if b"[APPENDUID " in line]
        url = b'URL "/INBOX/;UID=%b/;SECTION=%b.MIME"' % (uid, b".".join([b"1"] * 20))
        text = b"TEXT {14+}\r\nSubject: x\r\n\r\n"
        ok(client, b"REPLACE 1 INBOX CATENATE (%b %b)" % (text, b" ".join([url] * MOST_URLS)))


def fetch(world: World) -> None:
    """Many messages and many items; then all that is told of the structure of the large one; then surrogates of large headers."""
    items = b" ".join(b"BODY.PEEK[HEADER.FIELDS (x%d)]" % number for number in range(300))
    with world.imap(b"INBOX") as client:
        ok(client, *([b"FETCH 1:200 (%b)" % items] * 2))
        append(world)
        ok(client, b"NOOP", b"FETCH * (BODYSTRUCTURE ENVELOPE)", b"FETCH * (%b)" % items)
        domains = b"".join(b"To: a@\xc3\xbc%d.d\r\n" % number for number in range(15_000))
        parts = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nX: \xc3\xbc\r\n\r\n" * 9_000
        for source in (domains + b"\r\nx", parts):
            answer = client.command(b"APPEND INBOX {}", source)[-1]
            assert answer.startswith(b"OK"), answer
            ok(client, b"NOOP", b"FETCH * (BODY.PEEK[HEADER] ENVELOPE BODYSTRUCTURE)", b"FETCH * BODY.PEEK[]")


def search(world: World) -> None:
    keys = b" ".join(b"TEXT absent%d" % number for number in range(300 if SCALE > 1 else 100))
    cheap = b" ".join(b"LARGER %d" % number for number in range(900))
    append(world)
    with world.imap(b"INBOX") as client:
        ok(client, b"SEARCH " + keys, b"SEARCH " + cheap, b"SEARCH HEADER x-none y")
        filters = [(b"loop", b"FILTER loop")]
        filters += [(b"f%d" % level, b" ".join([b"FILTER f%d" % (level - 1)] * 400)) for level in range(1, 4)]
        filters += [(b"f0", b"UID " + b",".join(b"%d" % uid for uid in range(1000, 2600, 2)))]
        pairs = b" ".join(b'/private/filters/values/%b "%b"' % each for each in filters)
        ok(client, b'SETMETADATA "" (%b)' % pairs, b"SEARCH" + b" FILTER f0" * 60)
        for _ in range(20):
            assert client.command(b"SEARCH FILTER f3")[-1].split()[:2] == [b"NO", b"[LIMIT]"]
            assert client.command(b"SEARCH FILTER loop")[-1].split()[:2] == [b"NO", b"[UNDEFINED-FILTER"]
        ok(client, b'SEARCH RETURN (RELEVANCY) FUZZY TEXT "examples subjects texts"')
        ok(client, b'SORT (RELEVANCY) UTF-8 FUZZY (TEXT "examples subjects" NOT BODY "%b")' % (b"absent " * 100))
        followed_searches(world, client)


def followed_searches(world: World, client: Client) -> None:
    """As many results with UPDATE as there may be, all of which change with each STORE of another client, and NOOPs."""
    ok(client, *([b"UID SEARCH RETURN (UPDATE) OR UNFLAGGED TEXT absent"] * (MAX_CONTEXTS - 2)))
    ok(client, *([b"UID SORT RETURN (UPDATE) (SUBJECT) UTF-8 UNFLAGGED"] * 2))
    with world.imap(b"INBOX") as other:
        for sign in (b"+", b"-", b"+", b"-"):
            ok(other, b"STORE 1:* %bFLAGS.SILENT (\\Flagged)" % sign)
            ok(client, b"NOOP")
    client.send(b"n NOOP\r\n" * 2000)
    for _ in range(2000):
        assert client.line().startswith(b"n OK")
    client.in_step()


def search_everywhere(world: World) -> None:
    """Each mailbox of the account, many of them with a message, by as many keys as there may be and by costly ones."""
    name = NAME.encode("ascii")
    sets = b",".join(b"%d" % number for number in range(1, 9000, 2))
    with world.imap(b"INBOX") as client:
        for number in range(0, FOLDERS, 8):
            ok(client, b"COPY 1 %b%d" % (name, number))
        ok(client, b"ESEARCH IN (personal subscribed subtree (%b)) RETURN (COUNT) 1" % name)
        ok(client, b"ESEARCH IN (personal) RETURN (COUNT) " + b" ".join(b"LARGER %d" % n for n in range(900)))
        ok(client, b"ESEARCH IN (personal) RETURN (COUNT) OR %b UID %b" % (sets, sets))
        ok(
            client,
            b"ESEARCH IN (personal) RETURN (MIN) "
            + b" ".join(b"TEXT absent%d" % n for n in range(choose(40, whole=100))),
        )
        # The client ends in the middle of one.
        client.send(b"t ESEARCH IN (personal) RETURN (MIN) OR BODY nowhere BODY absent\r\n")


ALL_KEYS = b"(SUBJECT REVERSE FROM TO CC DATE ARRIVAL REVERSE SIZE DISPLAYFROM DISPLAYTO)"


def references(world: World) -> None:
    """Threads of messages that name thousands of others, and of all that there are."""
    chain = b" ".join(b"<%d@x>" % number for number in range(6000))
    circle = b" ".join([b"<5999@x> <0@x>"] * 3000)
    with world.imap(b"INBOX") as client:
        for named in (chain, circle, circle):
            ok(client, b"APPEND INBOX {%d+}\r\nReferences: %b\r\n\r\nx" % (len(named) + 17, named))
        ok(client, *(b"THREAD %b UTF-8 ALL" % name for name in (b"REFERENCES", b"REFS", b"ORDEREDSUBJECT")))


def pipelined(client: Client, line: bytes, count: int, *, text: bool) -> None:
    """The same POP3 command many times, then another one."""
    client.send((line + b"\r\n") * count)
    for _ in range(count):
        assert client.line().startswith(b"+OK")
        if text:
            client.text()
    client.in_step()


def pop3(line: bytes, count: int, *, text: bool) -> Callable[[World], None]:
    def ask(world: World) -> None:
        with world.pop3() as client:
            pipelined(client, line, count, text=text)

    return ask


def pop3_login(command: str) -> Callable[[World], None]:
    def log(world: World) -> None:
        password = world.server.accounts[world.user]
        for _ in range(5):
            with Client(world.server, "pop3s") as client:
                if command == "AUTH":
                    assert client.ask(b"AUTH PLAIN " + plain(world.user, password)).startswith(b"+OK")
                else:
                    assert client.ask(f"USER {world.user}".encode()).startswith(b"+OK")
                    assert client.ask(f"PASS {password}".encode()).startswith(b"+OK")
                assert client.ask(b"QUIT").startswith(b"+OK")

    return log


def pop3_large(line: bytes) -> Callable[[World], None]:
    def ask(world: World) -> None:
        append(world)
        with world.pop3() as client:
            number = int(client.ask(b"STAT").split()[1])
            client.send(line % number + b"\r\n")
            assert client.line().startswith(b"+OK")
            assert len(client.text()) > LARGEST // 2

    return ask


def pop3_quit(world: World) -> None:
    """All of the copies are deleted; INBOX is what POP3 has, so the originals come back."""
    with world.imap(b"INBOX") as client:
        ok(client, b"CREATE kept", b"COPY 1:%d kept" % MANY)
    with world.pop3() as client:
        client.send(b"".join(b"DELE %d\r\n" % number for number in range(1, MANY + 1)) + b"QUIT\r\n")
        for _ in range(MANY + 1):
            assert client.line().startswith(b"+OK")
    with world.imap(b"kept") as client:
        ok(client, b"MOVE 1:* INBOX", b"UNSELECT", b"DELETE kept")


def mail(protocol: str, verb: str) -> Callable[[World], None]:
    """The largest message, to several of ours, in one piece or in very many."""

    def send(world: World) -> None:
        with log_in(world.server, protocol, world.user) as client:
            recipients = [b"u028@example.test", b"u029@example.test", b"u030@example.test", world.user.encode()]
            assert client.ask(b"MAIL FROM:<%b>" % world.user.encode()).startswith(b"250")
            accepted = [client.ask(b"RCPT TO:<%b>" % recipient) for recipient in recipients]
            assert any(answer.startswith(b"250") for answer in accepted), accepted
            message = large_message().replace(b"cost@example.test", world.user.encode())
            if verb == "DATA":
                assert client.ask(b"DATA").startswith(b"354")
                client.send(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            else:
                chunks = [message[at : at + 4096] for at in range(0, len(message), 4096)]
                client.send(b"".join(b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in chunks) + b"BDAT 0 LAST\r\n")
                for _ in chunks:
                    assert client.reply().startswith(b"250")
            replies = [client.reply() for _ in accepted] if protocol == "lmtp" else [client.reply()]
            assert all(reply.startswith(b"250") for reply in replies), replies

    return send


def metrics(world: World) -> None:
    for _ in range(30):
        with urllib.request.urlopen(f"http://127.0.0.1:{world.server.port('metrics')}/metrics") as answer:
            assert answer.status == 200


def imap(*commands: bytes, mailbox: bytes = b"") -> Callable[[World], None]:
    def ask(world: World) -> None:
        with world.imap(mailbox) as client:
            ok(client, *commands)

    return ask


def unseen(command: bytes, rest: bytes = b"") -> Callable[[World], None]:
    def ask(world: World) -> None:
        mailbox = world.unseen_mailbox()
        with world.imap() as client:
            ok(client, command + b" " + mailbox + rest)

    return ask


def select(world: World) -> None:
    """A mailbox that nobody has seen, and resynchronizations as large as may be."""
    unseen(b"SELECT")(world)
    with world.imap(b"INBOX") as client:
        answer = client.command(b"STATUS INBOX (UIDVALIDITY)")[0]
        validity = answer.split(b"UIDVALIDITY ")[1].split(b")")[0]
        uids = b",".join(b"%d" % uid for uid in range(2, 10_000, 2))
        ok(client, b"ENABLE QRESYNC")
        for known in (b"", b" 1:4294967295", b" " + uids, b" (%b %b)" % (uids, uids)):
            ok(client, b"SELECT INBOX (QRESYNC (%b 1%b))" % (validity, known))
            ok(client, b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)")


def move(world: World) -> None:
    with world.imap(b"INBOX") as client:
        ok(client, b"CREATE moved-here", b"MOVE 1:* moved-here", b"SELECT moved-here", b"MOVE 1:* INBOX")
        ok(client, b"UNSELECT", b"DELETE moved-here")


def annotations(*commands: bytes) -> Callable[[World], None]:
    """As many annotations as a mailbox may have, as large as they may be."""
    octets = b"x" * 8192
    pairs = [
        b" ".join(b"/private/%d {%d+}\r\n%b" % (n, len(octets), octets) for n in range(low, low + 8))
        for low in range(0, 32, 8)
    ]
    return imap(*(b"SETMETADATA INBOX (%b)" % each for each in pairs), *(commands * 20))


HOSTILE: dict[str, Callable[[World], None]] = {
    "IMAP APPEND": append,
    "IMAP CHECK": lambda world: changed_by_another(world, lambda client: ok(client, b"CHECK")),
    "IMAP CLOSE": lambda world: with_copies(world, b"CLOSE"),
    "IMAP COPY": imap(b"CREATE c1", b"COPY 1:* c1", b"CREATE c2", b"COPY 1:* c2", mailbox=b"INBOX"),
    "IMAP CREATE": imap(*(b"CREATE made/%d" % number for number in range(50))),
    "IMAP DELETE": imap(*(b"CREATE gone%d" % n for n in range(30)), *(b"DELETE gone%d" % n for n in range(30))),
    "IMAP ESEARCH": search_everywhere,
    "IMAP EXAMINE": unseen(b"EXAMINE"),
    "IMAP EXPUNGE": lambda world: with_copies(world, b"EXPUNGE"),
    "IMAP FETCH": fetch,
    "IMAP NOTIFY": notify,
    "IMAP GETQUOTA": imap(b'GETQUOTA "User quota"', *([b'GETQUOTA "User quota"'] * 200)),
    "IMAP GETQUOTAROOT": unseen(b"GETQUOTAROOT"),
    "IMAP GETMETADATA": annotations(b"GETMETADATA (DEPTH infinity) INBOX /private"),
    "IMAP IDLE": lambda world: changed_by_another(world, idle),
    "IMAP LIST": imap(
        *(
            [
                b'LIST "" "%b"' % LONG_PATTERN,
                b'LIST "" "%b"' % LONGER_PATTERN,
                b'LIST "" "*"',
                b'LIST (SUBSCRIBED RECURSIVEMATCH) "" (%b)' % b" ".join(MANY_PATTERNS),
                b'LIST "" "*" RETURN (SUBSCRIBED STATUS (MESSAGES UNSEEN SIZE))',
                b'LIST "" "*" RETURN (METADATA (%b))' % b" ".join(b"/private/%d" % number for number in range(256)),
            ]
            * 2
        )
    ),
    "IMAP LSUB": imap(*([b'LSUB "" "%b"' % LONG_PATTERN, b'LSUB "" "%b"' % LONGER_PATTERN, b'LSUB "" "*"'] * 2)),
    "IMAP MOVE": move,
    "IMAP NOOP": lambda world: changed_by_another(world, lambda client: ok(client, b"NOOP")),
    "IMAP RENAME": rename,
    "IMAP REPLACE": replace,
    "IMAP SEARCH": search,
    "IMAP SELECT": select,
    "IMAP SETMETADATA": annotations(b"SETMETADATA INBOX (/private/0 NIL)", b'SETMETADATA INBOX (/private/0 "x")'),
    "IMAP SORT": imap(b"SORT %b UTF-8 ALL" % ALL_KEYS, b"UID SORT (SUBJECT) UTF-8 TEXT absent", mailbox=b"INBOX"),
    "IMAP STATUS": unseen(b"STATUS", b" (MESSAGES UNSEEN RECENT)"),
    "IMAP STORE": imap(b"STORE 1:* +FLAGS (%b)" % KEYWORDS, b"STORE 1:* -FLAGS (%b)" % KEYWORDS, mailbox=b"INBOX"),
    "IMAP SUBSCRIBE": imap(*(f"SUBSCRIBE {NAME}{number}".encode() for number in range(50))),
    "IMAP THREAD": references,
    "IMAP UNSUBSCRIBE": imap(*(f"UNSUBSCRIBE {NAME}{number}".encode() for number in range(50))),
    "POP3 AUTH": pop3_login("AUTH"),
    "POP3 LIST": pop3(b"LIST", 50, text=True),
    "POP3 PASS": pop3_login("PASS"),
    "POP3 QUIT": pop3_quit,
    "POP3 RETR": pop3_large(b"RETR %d"),
    "POP3 RSET": pop3(b"RSET", 2000, text=False),
    "POP3 STAT": pop3(b"STAT", 2000, text=False),
    "POP3 TOP": pop3_large(b"TOP %d 1000000000"),
    "POP3 UIDL": pop3(b"UIDL", 50, text=True),
    "submission BDAT": mail("submissions", "BDAT"),
    "submission DATA": mail("submissions", "DATA"),
    "LMTP BDAT": mail("lmtp", "BDAT"),
    "LMTP DATA": mail("lmtp", "DATA"),
    "HTTP /metrics": metrics,
}
"""The most expensive request that a client can make of each row."""


def test_every_row_has_a_constant_cost_or_a_hostile_case() -> None:
    assert {name for name, cost in rows().items() if not cost.is_constant} == HOSTILE.keys()
    assert all(cost.runs for cost in rows().values())


@pytest.mark.parametrize("row", HOSTILE)
def test_others_are_served_meanwhile(world: World, row: str) -> None:
    HOSTILE[row](world)
    world.remove_large_messages()


def test_every_keyword_on_every_message(world: World) -> None:
    """All that a mailbox takes, and further ones that are refused after a look at each file."""
    mailbox = world.unseen_mailbox()
    words = [b"long-keyword-%d-%b" % (number, b"x" * 12) for number in range(500)]
    with world.imap(mailbox) as client, world.imap(mailbox) as other:
        for start in range(0, 500, 100):
            ok(client, b"STORE 1:* +FLAGS.SILENT (%b)" % b" ".join(words[start : start + 100]))
            ok(other, b"NOOP")
        for _ in range(50):
            assert client.command(b"STORE 1 +FLAGS (one-too-many)")[-1].startswith(b"NO [LIMIT]")
        ok(client, b"FETCH 1:* FLAGS", b"UID FETCH 1:* (FLAGS)", b"STORE 1:* +FLAGS (\\Seen)")
        ok(client, b"STORE %b +FLAGS (\\Answered)" % b",".join(b"%d" % number for number in range(1, MANY, 2)))
        ok(client, b"SEARCH " + b" ".join(b"KEYWORD " + word for word in words), b"SEARCH UNKEYWORD " + words[-1])
        ok(client, b"CREATE all-keywords", b"COPY 1:* all-keywords", b"SELECT " + mailbox, b"SELECT all-keywords")
        ok(other, b"NOOP", b"STORE 1:* FLAGS (\\Seen)", b"STORE 1:* FLAGS.SILENT (one-too-many)")


def test_keywords_of_its_own_for_each_client(world: World) -> None:
    mailbox = world.unseen_mailbox()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(world.imap(mailbox)) for _ in range(12)]
        for number in range(60):
            ok(clients[number % 12], b"STORE 1:50 +FLAGS (keyword-%d)" % number)
        for client in clients:
            ok(client, b"NOOP", b"SEARCH KEYWORD keyword-59")
