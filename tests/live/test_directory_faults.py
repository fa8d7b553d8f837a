"""What befalls the file of a directory while the server runs: nobody is let in by mistake, no mail is lost, and all heals by itself."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import apsw
import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.directory import changing
from mailserver.directory.changing import Author
from mailserver.directory.model import NewAccount, Password
from mailserver.directory.sqlite import SQLiteDatabase
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.server import Server
from tests.workers.processes import workers

ANNA, BEN = "anna@example.test", "ben@example.test"
UNAVAILABLE = "can log in until it can be read"
WORKERS = 2
HANG = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("faults")
    made = Server(
        place,
        workers=WORKERS,
        edit={f"file:{place}/users": f"directory:{place}/accounts/directory.db"},
    )
    done = CliRunner().invoke(main, ["directory", "create", "--config", str(made.config)])
    assert done.exit_code == 0, done.output
    with opened(made) as database:
        for name in (ANNA, BEN):
            changing.add_account(database, Author("tests", 1), NewAccount(name, Password("{PLAIN}geheim")))
    with made as server:
        yield server
    no_bug(server.log)


def path_of(server: Server) -> Path:
    return server.dir / "accounts" / "directory.db"


@contextlib.contextmanager
def opened(server: Server) -> Iterator[SQLiteDatabase]:
    database = SQLiteDatabase.open(path_of(server), waits=5000)
    try:
        yield database
    finally:
        database.close()


class Bystander:
    """A session that is asked again and again, and must be answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers = 0
        self.failure: Exception | None = None

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.05):
                answer = self._client.ask(b"NOOP\r\n")
                assert answer.startswith((b"250", b"+OK")), answer
                self.answers += 1
        except Exception as error:
            self.failure = error

    def goes_on(self) -> None:
        """Wait for answers to what is asked from now on."""
        wanted = self.answers + 3
        eventually(lambda: self.failure is not None or self.answers >= wanted, HANG)
        assert self.failure is None, repr(self.failure)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join(HANG)
        self._client.socket.close()


def connected(server: Server, protocol: str) -> Client:
    client = Client(server, protocol)
    client.greeting()
    return client


def login(server: Server, protocol: str, name: str) -> Client:
    return connected(server, protocol).log_in(name, "geheim")


def answer(server: Server, protocol: str, name: str, password: str = "geheim") -> bytes:
    with connected(server, protocol) as client:
        return client.try_login(name, password)


def lmtp(server: Server) -> Client:
    client = connected(server, "lmtp")
    client.hello()
    assert client.ask(b"MAIL FROM:<>\r\n").startswith(b"250")
    return client


def data(client: Client, subject: str) -> bytes:
    """The reply to a message, all of whose recipients were accepted."""
    assert client.ask(b"DATA\r\n").startswith(b"354")
    return client.ask(f"Subject: {subject}\r\n\r\ntext\r\n.\r\n".encode())


def copies(server: Server, name: str, subject: str) -> int:
    with login(server, "imaps", name) as client:
        client.send(b"s SELECT INBOX\r\nt UID SEARCH SUBJECT " + subject.encode() + b"\r\n")
        [found] = [line for line in client.until(rb"t OK") if line.startswith(b"* SEARCH")]
        return len(found.split()) - 2


def works(server: Server) -> bool:
    """Does each process let the user in, and nobody else? A connection goes to either of them."""
    return all(b"a OK" in answer(server, "imaps", ANNA) for _ in range(4 * WORKERS))


# --- Faults. Each ends with the block.


@contextlib.contextmanager
def removed_and_put_back(server: Server) -> Iterator[None]:
    path = path_of(server)
    copy = path.with_name("copy.db")
    with opened(server) as database:
        database.backup(copy)
    path.unlink()
    try:
        yield
    finally:
        os.rename(copy, path)


@contextlib.contextmanager
def directory_that_may_not_be_searched(server: Server) -> Iterator[None]:
    """As if it were: root may search any."""
    accounts = path_of(server).parent
    os.rename(accounts, accounts.with_name("aside"))
    try:
        yield
    finally:
        os.rename(accounts.with_name("aside"), accounts)


@contextlib.contextmanager
def something_else_in_its_place(server: Server) -> Iterator[None]:
    path = path_of(server)
    os.rename(path, path.with_name("aside.db"))
    path.write_bytes(b"not a database at all\n" * 500)
    try:
        yield
    finally:
        os.rename(path.with_name("aside.db"), path)


@contextlib.contextmanager
def overwritten(server: Server, change: Callable[[bytes, int], bytes]) -> Iterator[None]:
    """The pages behind the first one are what `change` makes of content and page size; in the end, what they were."""
    path = path_of(server)
    connection = apsw.Connection(str(path))
    # The WAL is known from the first question on.
    connection.execute("SELECT count(*) FROM meta").fetchall()
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    before = path.read_bytes()
    size = int(connection.execute("PRAGMA page_size").get)
    versions = itertools.count(1)

    def write(content: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(size)
            file.write(content[size:])
        # A commit, so that processes read the pages anew.
        connection.execute(f"PRAGMA user_version = {next(versions)}")
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    write(change(before, size))
    try:
        yield
    finally:
        write(before)
        connection.close()


def damaged(server: Server) -> AbstractContextManager[None]:
    return overwritten(server, lambda content, size: content[:size] + random.Random(1).randbytes(len(content) - size))


HOLD = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path: Path, *statements: str) -> Iterator[None]:
    """Another process has executed these statements, and does not go on."""
    command = [sys.executable, "-c", HOLD, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        yield
        process.stdin.close()
        process.wait()


@contextlib.contextmanager
def locked_for_one_program(server: Server) -> Iterator[None]:
    """It comes back from elsewhere, where a program has taken it for itself alone."""
    path = path_of(server)
    aside = path.with_name("aside.db")
    before = len(server.log)
    os.rename(path, aside)
    try:
        # None has it open any more, so that one program can have it alone.
        eventually(lambda: server.log[before:].count(UNAVAILABLE) >= WORKERS, HANG)
        with held(aside, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
            os.rename(aside, path)
            yield
    finally:
        if aside.exists():
            os.rename(aside, path)


Fault = Callable[[Server], AbstractContextManager[None]]
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "removed": (removed_and_put_back, ("does not exist, or is no file",)),
    "away": (directory_that_may_not_be_searched, ("does not exist, or is no file",)),
    "replaced": (something_else_in_its_place, ("is damaged",)),
    "damaged": (damaged, ("is damaged",)),
    "locked": (locked_for_one_program, ("does not exist, or is no file", "is locked by another program")),
}
"""By name: the fault, and what each process says of it once."""


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_directory_that_cannot_be_read_lets_nobody_in_and_heals(server: Server, name: str) -> None:
    fault, said = FAULTS[name]
    assert works(server)
    with Bystander(lmtp(server)) as bystander, lmtp(server) as begun, login(server, "submissions", BEN) as sender:
        assert begun.ask(f"RCPT TO:<{BEN}>\r\n".encode()).startswith(b"250")
        before = len(server.log)
        with fault(server):
            eventually(lambda: server.log[before:].count(UNAVAILABLE) >= WORKERS * len(said), HANG)
            for _ in range(3):
                for user, password in ((ANNA, "geheim"), (ANNA, "x"), (BEN, "geheim"), ("nobody@example.test", "x")):
                    assert b"a NO [UNAVAILABLE]" in answer(server, "imaps", user, password)
            assert answer(server, "pop3s", ANNA).startswith(b"-ERR [SYS/TEMP]")
            assert answer(server, "submissions", ANNA).startswith(b"454 4.7.0")
            for recipient in (ANNA, "nobody@example.test"):
                with lmtp(server) as client:
                    assert client.ask(f"RCPT TO:<{recipient}>\r\n".encode()).startswith(b"451 4.")
            mail = sender.ask(f"MAIL FROM:<{BEN}>\r\nRCPT TO:<{ANNA}>\r\n".encode())
            assert (mail[:3], sender.line()[:3]) in {(b"250", b"451"), (b"451", b"503")}
            delivered = data(begun, f"begun-{name}")
            bystander.goes_on()
        eventually(lambda: works(server), HANG)
        bystander.goes_on()
    lines = [line for line in server.log[before:].splitlines() if UNAVAILABLE in line]
    assert [sum(each in line for line in lines) for each in said] == [WORKERS] * len(said), lines
    assert len(lines) == WORKERS * len(said), lines
    assert b"AUTHENTICATIONFAILED" in answer(server, "imaps", ANNA, "wrong")
    assert delivered.startswith((b"250", b"451")), delivered
    assert copies(server, BEN, f"begun-{name}") == delivered.startswith(b"250")
    with lmtp(server) as again:
        assert again.ask(f"RCPT TO:<{ANNA}>\r\n".encode()).startswith(b"250")
        assert data(again, f"again-{name}").startswith(b"250")
    assert copies(server, ANNA, f"again-{name}") == 1


def test_damage_at_one_users_rows_keeps_out_that_user_alone(server: Server) -> None:
    secret = b"{PLAIN}geheim-of-carl"
    with opened(server) as database:
        # Hashes of others, so that the tables have many pages.
        others = [NewAccount(f"u{number:03}@example.test", Password("{PLAIN}" + "x" * 200)) for number in range(300)]
        changing.import_accounts(database, Author("tests", 1), others)
        changing.add_account(database, Author("tests", 1), NewAccount("carl@example.test", Password(secret.decode())))

    def damage(content: bytes, size: int) -> bytes:
        pages = [content[at : at + size] for at in range(0, len(content), size)]
        return b"".join(b"\xff" * size if secret in page else page for page in pages)

    def carl() -> bytes:
        return answer(server, "imaps", "carl@example.test", "geheim-of-carl")

    assert b"a OK" in carl()
    with login(server, "imaps", ANNA) as session:
        before = len(server.log)
        with overwritten(server, damage):
            eventually(lambda: b"[UNAVAILABLE]" in carl(), HANG)
            for _ in range(10):
                assert b"[UNAVAILABLE]" in carl()
                assert b"a OK" in answer(server, "imaps", ANNA)
                with lmtp(server) as client:
                    assert client.ask(f"RCPT TO:<{BEN}>\r\n".encode()).startswith(b"250")
        eventually(lambda: all(b"a OK" in carl() for _ in range(4 * WORKERS)), HANG)
        session.send(b"z NOOP\r\n")
        assert session.until(rb"z ")[-1].startswith(b"z OK")
    assert server.log[before:].count("is damaged") <= WORKERS


def test_a_reload_keeps_the_locks_that_tell_others_who_has_it_open(server: Server) -> None:
    """Another program that thinks itself alone would end the WAL, in which this one reads."""

    def holders() -> set[int]:
        inode = path_of(server).stat().st_ino
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return {int(row[4]) for row in rows if row[5].endswith(f":{inode}")}

    assert works(server)
    server.run_cli("reload", "--config", str(server.config))
    assert works(server)
    assert holders() >= set(workers(server))


def test_another_programs_transaction_keeps_nobody_out(server: Server) -> None:
    config = ("--config", str(server.config))
    with Bystander(lmtp(server)) as bystander, held(path_of(server), "BEGIN EXCLUSIVE"):
        for user, good in ((ANNA, True), (BEN, True)):
            assert (b"a OK" in answer(server, "imaps", user)) == good
        assert b"AUTHENTICATIONFAILED" in answer(server, "imaps", ANNA, "wrong")
        refused = server.run_cli("user", "disable", ANNA, *config, check=False)
        assert refused.returncode == 1
        assert "is locked by another program" in refused.stderr + refused.stdout
        bystander.goes_on()
        assert b"a OK" in answer(server, "imaps", ANNA)
    server.run_cli("user", "disable", ANNA, *config)
    assert b"AUTHENTICATIONFAILED" in answer(server, "imaps", ANNA)
    server.run_cli("user", "enable", ANNA, *config)
    assert works(server)


def test_a_copy_that_is_moved_over_it_is_what_counts(server: Server) -> None:
    """Without the command that restores: the sessions of all end, and those of the copy alone are let in again."""
    path = path_of(server)
    with opened(server) as database:
        database.backup(path.with_name("copy.db"))
        changing.add_account(database, Author("tests", 1), NewAccount("late@example.test", Password("{PLAIN}geheim")))
        changing.set_password(database, Author("tests", 1), ANNA, Password("{PLAIN}anders"))
    assert b"a OK" in answer(server, "imaps", ANNA, "anders")
    with Bystander(lmtp(server)) as bystander, login(server, "imaps", "late@example.test") as late:
        path.with_name("copy.db").replace(path)
        late.until(rb"\* BYE this account was changed")
        eventually(lambda: works(server), HANG)
        for name, password in (("late@example.test", "geheim"), (ANNA, "anders")):
            assert b"AUTHENTICATIONFAILED" in answer(server, "imaps", name, password)
        bystander.goes_on()
        with lmtp(server) as client:
            assert client.ask(b"RCPT TO:<late@example.test>\r\n").startswith(b"550")
