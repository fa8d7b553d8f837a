"""Commands of several administrators at once, each a process, beside a running server: each is done whole or refused by a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from mailserver.cli import main
from mailserver.directory import changing, reading
from mailserver.directory.changing import Author
from mailserver.directory.model import NewAccount, Password
from mailserver.directory.sqlite import SQLiteDatabase
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.server import Server
from tests.sweeps import choose

EACH = choose(20, whole=50)
"""Commands of each administrator."""
TARGET = "target@example.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("administrators")
    made = Server(place, workers=2, edit={f"file:{place}/users": f"directory:{place}/accounts/directory.db"})
    done = CliRunner().invoke(main, ["directory", "create", "--config", str(made.config)])
    assert done.exit_code == 0, done.output
    database = opened(made)
    for name in (TARGET, "ben@example.test", *(f"gone{number}@example.test" for number in range(5))):
        changing.add_account(database, Author("tests", 1), NewAccount(name, Password("{PLAIN}geheim")))
    database.close()
    with made as server:
        yield server
    no_bug(server.log)


def opened(server: Server) -> SQLiteDatabase:
    return SQLiteDatabase.open(server.dir / "accounts" / "directory.db", waits=5000)


def login(server: Server, name: str) -> Client:
    client = Client(server, "imaps")
    client.greeting()
    return client.log_in(name, "geheim")


ADMINISTRATOR = """
import json, sys
from click.testing import CliRunner
from mailserver.auth.schemes import schemes
from mailserver.cli import main
schemes.LIGHT = schemes.Argon2Cost(memory_kib=64, passes=1)
results = []
for words, text in json.load(sys.stdin):
    done = CliRunner().invoke(main, words, input=text)
    results.append([done.exit_code, done.output, repr(done.exception)])
json.dump(results, sys.stdout)
"""
"""One command after another, in a process."""

Command = tuple[list[str], str]


def run(server: Server, commands: list[Command]) -> list[tuple[int, str]]:
    """The exit status and the output of each."""
    words = [([*each, "--config", str(server.config)], text) for each, text in commands]
    done = subprocess.run(
        [sys.executable, "-c", ADMINISTRATOR],
        input=json.dumps(words),
        env=server.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    results = json.loads(done.stdout)
    assert all(error in {"None", "SystemExit(1)"} for _status, _output, error in results), results
    return [(status, output) for status, output, _error in results]


def added(number: int) -> Command:
    return ["user", "add", f"new{number}@example.test"], "geheim-geheim-geheim\n" * 2


def changed(server: Server, number: int) -> Command:
    """One of several kinds; an alias of a name of which the other administrator makes a user."""
    if number % 10 == 9:
        document = server.dir / f"document{number}.toml"
        document.write_text(f'[[alias]]\naddress = "applied{number}@example.test"\ntargets = ["{TARGET}"]\n')
        return ["directory", "apply", str(document), "--yes"], ""
    if number % 10 == 8:
        return ["user", "disable", f"gone{number // 10}@example.test"], ""
    name = f"new{number}" if number % 10 == 7 else f"alias{number}"
    return ["alias", "add", f"{name}@example.test", TARGET], ""


def test_two_at_once(server: Server) -> None:
    database = opened(server)
    _identity, serial = reading.identity(database)
    plans = [added(number) for number in range(EACH)], [changed(server, number) for number in range(EACH)]
    sessions = [login(server, f"gone{number}@example.test") for number in range(EACH // 10)]
    with login(server, "ben@example.test") as bystander, ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda plan: run(server, plan), plans))
        bystander.send(b"z NOOP\r\n")
        assert bystander.until(rb"z ")[-1].startswith(b"z OK")
    for session in sessions:
        with session:
            assert session.rest(), "each change is seen"
    refused = [output.splitlines()[-1] for kind in results for status, output in kind if status]
    taken = [line for line in refused if line.startswith("Error: new")]
    # One of the two gets each name that both want; a plan that was overtaken is not applied.
    assert len(taken) == EACH // 10, refused
    assert all("the directory was changed meanwhile" in line for line in refused if line not in taken), refused
    serials = [change.serial for change in reading.changes(database, serial)]
    assert sorted(set(serials)) == list(range(serial + 1, max(serials) + 1))
    assert len(set(serials)) >= 2 * EACH - len(refused)
    names = {account.name for account in reading.accounts(database)}
    listed = json.loads(run(server, [(["alias", "list", "--json"], "")])[0][1])
    aliases = {row["address"] for row in listed}
    for number in range(EACH):
        assert (f"new{number}@example.test" in names) == (results[0][number][0] == 0)
        assert f"new{number}@example.test" in names | aliases
        if number % 10 < 7:
            assert f"alias{number}@example.test" in aliases
        if number % 10 == 9:
            assert (f"applied{number}@example.test" in aliases) == (results[1][number][0] == 0)
    assert database.problems() == []
    database.close()
    new = next(name for name in names if name.startswith("new"))
    eventually(lambda: works(server, new))


def works(server: Server, name: str) -> bool:
    with Client(server, "imaps") as client:
        client.greeting()
        return client.try_login(name, "geheim-geheim-geheim").startswith(b"a OK")
