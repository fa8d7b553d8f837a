"""What look-ups in a directory cost: statements, and steps of SQLite, which do not grow with its size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from mailserver.auth.app_passwords import probe_of
from mailserver.auth.interfaces import LoginContext, User
from mailserver.directory import address_changes, changing
from mailserver.directory.model import AddressKind, NewAccount, Password, State, StoredAddress, StoredKeys, Target
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.sasl.scram_keys import ScramKeys, derive
from tests.auth.test_app_passwords import ANNA, APP, BEN, MAIN, ROOT, World
from tests.fakes import run_now

PROBE = probe_of(APP.encode()) or ""
STATE = "PRAGMA data_version"
POSITION = 2
"""Questions for the position in the record of changes, as long as there are no new ones."""


class Statements:
    """The statements that a connection has run."""

    def __init__(self, database: SQLiteDatabase | None) -> None:
        assert database is not None
        self.connection = database._connection
        self.texts: list[str] = []
        self.connection.set_exec_trace(self._note)

    def _note(self, _cursor: object, text: str, _bindings: object) -> bool:
        self.texts.append(text)
        return True

    def taken(self) -> tuple[int, int]:
        """The number of questions since the last call, and of looks for changes."""
        texts, self.texts = self.texts, []
        looks = texts.count(STATE)
        return len(texts) - looks, looks

    def steps(self, work: Callable[[], object]) -> int:
        """The steps of SQLite's machine in all questions of this work."""
        found: list[int] = []

        def note(event: dict[str, dict[str, int]]) -> None:
            found.append(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

        self.connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)
        try:
            work()
        finally:
            self.connection.trace_v2(0)
        return sum(found)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "directory.db")


def statements(world: World) -> Statements:
    """Those from now on, where nothing is remembered."""
    world.backend.find_user("nobody@example.test")
    world.backend._forget()
    return Statements(world.backend._database)


def alias(world: World, name: str, *targets: str, kind: AddressKind = AddressKind.ALIAS) -> None:
    address_changes.add_address(
        world.directory, ROOT, StoredAddress(name, kind, tuple(Target(target) for target in targets))
    )


def test_a_login_asks_for_the_account_and_its_domain(world: World) -> None:
    counted = statements(world)
    world.log_in(MAIN)
    assert counted.taken()[0] == POSITION + 2
    world.log_in(MAIN)
    assert counted.taken()[0] == 0


def test_a_login_with_an_app_password_asks_one_question(world: World) -> None:
    world.add()
    counted = statements(world)
    world.log_in(APP)
    # One of the looks for changes is that for the position.
    assert counted.taken() == (POSITION + 2, 2)
    # The domain and the position are remembered, the app password is not.
    world.log_in(APP)
    assert counted.taken() == (1, 2)


def test_a_login_by_scram_with_an_app_password_asks_for_all_of_them(world: World) -> None:
    world.add()
    counted = statements(world)
    assert world.by_scram(APP).credential
    first = counted.taken()[0]
    for number in range(20):
        world.add(f"device {number}", f"abcd-efgh-ijkl-mnop-qrst-uv{chr(97 + number)}a")
    counted.taken()
    assert world.by_scram(APP).credential
    assert counted.taken()[0] == first


CARL = "carl@example.test"
NAMES = {
    "main password": ANNA,
    "app passwords": BEN,
    "disabled": "disabled@example.test",
    "no keys": "plain@example.test",
    "unknown": "nobody@example.test",
}


@pytest.fixture
def keyed(world: World) -> World:
    """A user of each kind, beside an unknown one: `NAMES`."""
    world.add(user=BEN, expires=int(world.wall) + 60)
    keys = {"SHA-256": StoredKeys.parse(derive("SHA-256", MAIN.encode(), b"salt", 4096).text())}
    changing.add_account(world.directory, ROOT, NewAccount(CARL, Password("{PLAIN}secret", keys)))
    changing.add_account(world.directory, ROOT, NewAccount(NAMES["disabled"], state=State.DISABLED))
    changing.add_account(world.directory, ROOT, NewAccount(NAMES["no keys"], Password("{PLAIN}secret")))
    return world


def test_scram_of_a_recent_name_asks_nothing_whether_it_exists_or_not(keyed: World) -> None:
    counted = statements(keyed)
    for name in NAMES.values():
        first_challenge(keyed, name)
    counted.taken()
    found = {}
    for kind, name in NAMES.items():
        first_challenge(keyed, name)
        found[kind] = counted.taken()
    assert set(found.values()) == {(0, found["unknown"][1])}, found


@pytest.mark.parametrize("kind", NAMES)
def test_scram_of_a_name_takes_the_same_work_whether_it_exists_or_not(
    keyed: World, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing is remembered but the domain, as after a change of the directory."""
    parsed: list[str] = []
    parse = ScramKeys.parse.__func__

    def note(cls: type[ScramKeys], text: str, hash_name: str) -> ScramKeys:
        parsed.append(hash_name)
        return parse(cls, text, hash_name)

    monkeypatch.setattr(ScramKeys, "parse", classmethod(note))

    def work(name: str) -> int:
        counted = statements(keyed)
        keyed.backend.find_domain("example.test")
        parsed.clear()
        return counted.steps(lambda: first_challenge(keyed, name))

    steps = work(CARL)
    assert len(parsed) == 1
    # Each app password has its row and its keys. Else a step or two are of where a row lies.
    difference = work(NAMES[kind]) - steps
    assert difference > 10 if kind == "app passwords" else abs(difference) <= 10
    assert len(parsed) == 1 + (kind == "app passwords")


def first_challenge(world: World, name: str) -> None:
    context = LoginContext("imap", None, None, "s1")
    run_now(world.site.service.scram_keys(name, "SHA-256", context))


@pytest.mark.parametrize(
    ("recipient", "questions"),
    [
        # The domain; the name as an address, with and without the default domain; the account.
        pytest.param(ANNA, 4, id="user"),
        pytest.param(f"{ANNA[:4]}+lists{ANNA[4:]}", 8, id="detail"),
        # The domain; the alias; the bare name of its target; the account.
        pytest.param("info@example.test", 4, id="alias"),
        # For each further member its bare name, and the account.
        pytest.param("all@example.test", 6, id="group"),
    ],
)
def test_a_recipient_asks_few_questions(world: World, recipient: str, questions: int) -> None:
    alias(world, "info@example.test", ANNA)
    alias(world, "all@example.test", ANNA, BEN, kind=AddressKind.GROUP)
    counted = statements(world)
    resolution = run_now(world.site.service.resolve(recipient, "+"))
    assert ANNA in [user.name for user, _detail in resolution.local]
    assert counted.taken()[0] == questions
    run_now(world.site.service.resolve(recipient, "+"))
    assert counted.taken()[0] == 0


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda world: world.backend.find_user(ANNA), id="user"),
        pytest.param(lambda world: world.backend.find_app_password(PROBE), id="app password"),
        pytest.param(lambda world: world.backend.find_address("info@example.test"), id="alias"),
        pytest.param(lambda world: world.backend.scram_keys(User(ANNA), "SHA-256"), id="scram"),
    ],
)
def test_a_question_takes_as_many_steps_whatever_the_numbers(world: World, ask: Callable[[World], object]) -> None:
    world.add()
    alias(world, "info@example.test", ANNA)
    counted = statements(world)
    few = counted.steps(lambda: ask(world))
    assert few > 0
    changing.import_accounts(world.directory, ROOT, [NewAccount(f"u{number}@example.test") for number in range(300)])
    for number in range(30):
        alias(world, f"alias{number}@example.test", ANNA)
    many = counted.steps(lambda: ask(world))
    # A row more that is looked at takes some steps; one or two are of where a row lies.
    assert many <= few + 4


def test_the_app_password_of_a_login_is_looked_at_again_alone(world: World) -> None:
    """As many steps and rows, however many others the account has."""
    used = world.add()
    counted = statements(world)

    def ask() -> None:
        found = world.backend.app_password(used.id, User(ANNA))
        assert found is not None
        assert (found.user.name, found.user.credential, found.label) == (ANNA, used.id, "phone")

    few = counted.steps(ask)
    for number in range(20):
        world.add(f"device {number}", f"abcd-efgh-ijkl-mnop-qrst-uv{chr(97 + number)}a")
    assert few > 0
    assert counted.steps(ask) <= few + 4
    assert world.backend.app_password(used.id, User(BEN)) is None


def test_no_statement_is_prepared_for_each_value(world: World) -> None:
    """With partial indexes and values that its planner looks at, SQLite prepares statements anew without telling."""
    world.add()
    alias(world, "info@example.test", ANNA)
    counted = statements(world)

    def ask(number: int) -> None:
        world.backend._forget()
        for name in (ANNA, f"nobody{number}@example.test"):
            world.backend.find_user(name)
            world.backend.find_app_password(PROBE)
            world.backend.find_app_password(f"{number}")
            world.backend.app_password(f"{number}", User(name))
            world.backend.find_address(f"info{number or ''}@example.test")
            world.backend.scram_keys(User(name), "SHA-256")
            world.backend.may_act_for(name, f"{number}", "example.test")

    prepared: list[object] = []

    def note(*what: object) -> int:
        prepared.append(what)
        return apsw.SQLITE_OK

    # It is asked whenever a statement is prepared.
    counted.connection.authorizer = note
    ask(0)
    assert prepared
    prepared.clear()
    for number in range(3):
        ask(number)
    assert prepared == []
