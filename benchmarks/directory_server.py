"""Servers of ours whose accounts are in a directory, and one with a passwd-file for comparison.

The large directory has accounts with PLAIN hashes and aliases, a group, and app passwords of those that log in. All passwords
are in clear or random, so that no hash hides the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, field
from click.testing import CliRunner

from benchmarks.client import Lines
from benchmarks.preparation import make_ours
from benchmarks.relay import Sink
from benchmarks.servers import Mailserver
from mailserver.auth.app_passwords import generate, probe_of
from mailserver.cli import main
from mailserver.directory import address_changes, credentials
from mailserver.directory.changing import Author
from mailserver.directory.credentials import AppPassword
from mailserver.directory.model import AddressKind, StoredAddress, Target
from mailserver.directory.sqlite import WRITER_WAITS, SQLiteDatabase
from tests.server import Server

USERS, FEW = 50_000, 5
"""Accounts of the large directory, and of the small one."""
ALIASES = 3
"""Aliases of each account."""
LOGINS = 300
"""Accounts that log in."""
MEMBERS = 1000
"""Members of the group."""
GROUP = "everybody@example.test"
_AUTHOR = Author("benchmarks", 1_790_000_000)


def user(number: int) -> str:
    """Return the name of an account."""
    return f"d{number}@example.test"


def password(number: int) -> str:
    """Return the main password of an account, as long as an app password."""
    return f"password-{number:020d}"


def alias(number: int, which: int = 0) -> str:
    """Return one of the ALIASES addresses of an account."""
    return f"d{number}.alias{which}@example.test"


@define
class Imported:
    """What it took to import the accounts."""

    seconds: float
    cpu: float
    size: int
    """Octets of the directory."""


@define
class DirectoryServers:
    """The servers; each is made and started when it is first asked for."""

    directory: Path
    sink: Sink
    workers: int
    """At least one: each is measured by itself."""
    app_passwords: list[str] = field(factory=lambda: [generate() for _ in range(LOGINS)])
    imported: Imported | None = None
    _started: dict[str, Mailserver] = field(factory=dict)

    @property
    def large(self) -> Mailserver:
        """The one with USERS accounts in a directory."""
        return self._started.get("large") or self._start("large", self._fill_large)

    @property
    def small(self) -> Mailserver:
        """The one with FEW accounts in a directory."""
        return self._started.get("small") or self._start("small", lambda server: _import(server, FEW))

    @property
    def file(self) -> Mailserver:
        """The one with the accounts that log in, in a passwd-file."""
        return self._started.get("file") or self._start("file", _fill_file)

    def stop(self) -> None:
        """Stop all that were started."""
        for each in self._started.values():
            each.server.stop()

    def _start(self, name: str, fill: Callable[[Server], object]) -> Mailserver:
        server = make_ours(self.directory / name, self.sink, self.workers, Mailserver.transport)
        fill(server)
        server.start()
        self._started[name] = made = Mailserver(server)
        return made

    def _fill_large(self, server: Server) -> None:
        self.imported = _import(server, USERS)
        database = SQLiteDatabase.open(_path(server), waits=WRITER_WAITS)
        try:
            for number, text in enumerate(self.app_passwords):
                new = AppPassword(credentials.new_id(), user(number), "benchmark")
                credentials.add_app_password(database, _AUTHOR, new, probe_of(text.encode()) or "", {})
            members = tuple(Target(user(number)) for number in range(MEMBERS))
            address_changes.add_address(database, _AUTHOR, StoredAddress(GROUP, AddressKind.GROUP, members))
        finally:
            database.close()


def ask_for(side: Mailserver, recipients: Sequence[str], *, connections: int = 1, each_time: int = 100) -> None:
    """Name the recipients to LMTP, so many each time for a message, which is not sent."""
    clients = [Lines(side.ports["lmtp"]) for _ in range(connections)]
    for at, client in enumerate(clients):
        client.reply(b"220")
        client.ask(b"LHLO bench.example.net\r\n", b"250")
        for start in range(at * each_time, len(recipients), each_time * connections):
            client.ask(b"MAIL FROM:<anna@example.net>\r\n", b"250")
            for each in recipients[start : start + each_time]:
                client.ask(b"RCPT TO:<%b>\r\n" % each.encode(), b"250")
            client.ask(b"RSET\r\n", b"250")
    for client in clients:
        client.ask(b"QUIT\r\n", b"221")
        client.close()


def _path(server: Server) -> Path:
    return server.dir / "accounts" / "directory.db"


def _import(server: Server, users: int) -> Imported:
    """Put accounts into a directory by the administrator's command, and have the server use it."""
    text = server.config.read_text()
    assert f"file:{server.dir}/users" in text
    text = text.replace(f"file:{server.dir}/users", f"directory:{_path(server)}")
    # A first login would make an Argon2 hash of its password.
    server.config.write_text(text.replace("[auth]\n", "[auth]\nrenew_hashes = false\n"))
    listed = server.dir / "listed"
    listed.write_text("".join(f"{_line(each, aliases=True)}\n" for each in range(users)))
    start, spent = time.monotonic(), time.process_time()
    for words in (["create"], ["import", str(listed)]):
        done = CliRunner().invoke(main, ["directory", *words, "--config", str(server.config)])
        assert done.exit_code == 0, done.output
    return Imported(time.monotonic() - start, time.process_time() - spent, _path(server).stat().st_size)


def _fill_file(server: Server) -> None:
    with (server.dir / "users").open("a") as users:
        users.writelines(f"{_line(each, aliases=False)}\n" for each in range(LOGINS))


def _line(number: int, *, aliases: bool) -> str:
    names = ",".join(alias(number, which) for which in range(ALIASES))
    return f"{user(number)}:{{PLAIN}}{password(number)}::::::{f'userdb_addresses={names}' if aliases else ''}"
