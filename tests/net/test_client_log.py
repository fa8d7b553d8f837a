"""What a process tells the ledger of logins: once an hour each, in batches, bounded; and who writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import astuple, evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mailserver.auth.credential_uses import CredentialUse
from mailserver.config.kinds import Count
from mailserver.config.model import Ledger
from mailserver.ledger.database import Ledger as Database
from mailserver.ledger.entry import Entry, as_row
from mailserver.net.admin import ledger as writing
from mailserver.net.admin.ledger import LedgerWriter, report_to_master, report_uses
from mailserver.net.connection import client_log as module
from mailserver.net.connection.client_log import GATHERING_TIME, REPORT_INTERVAL, ClientLog, program_of
from mailserver.net.ipc.worker_messages import ClientsSeen
from mailserver.session.channel import TLSInfo
from tests.fakes import info
from tests.ledger.entries import ANNA

TLS = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "mail.example.test", "imap")
CONNECTION = evolve(info(), protocol="imaps", local="[::1]:993", tls=TLS)


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.enabled = True
        self.told: list[list[Entry]] = []
        self.client_log = ClientLog(
            self.clock, lambda entries: self.told.append(list(entries)), enabled=lambda: self.enabled
        )

    def login(self, program: str = "", **changed: Any) -> Any:
        account = changed.pop("account", "anna@example.test")
        return self.client_log.login(evolve(CONNECTION, **changed), account, "PLAIN", program)


def test_what_is_kept_of_a_login() -> None:
    world = World()
    world.login("Thunderbird 128.0")
    world.login(protocol="imap", local="192.0.2.1:143")
    world.login(protocol="imap", local="/run/imap", tls=None)
    world.clock.advance(GATHERING_TIME)
    (told,) = world.told
    assert told == [
        ANNA,
        evolve(ANNA, program="", protocol="imap", port=143, tls="STARTTLS"),
        evolve(ANNA, program="", protocol="imap", port=0, tls="none", version="", cipher="", alpn="", server_name=""),
    ]


def test_the_same_is_told_once_an_hour() -> None:
    world = World()
    for _ in range(100):
        world.login()
    world.clock.advance(GATHERING_TIME)
    assert [len(entries) for entries in world.told] == [1]
    world.login()
    world.clock.advance(REPORT_INTERVAL - 1)
    assert len(world.told) == 1
    world.login()
    world.clock.advance(GATHERING_TIME)
    assert [len(entries) for entries in world.told] == [1, 1]


def test_what_it_is_may_be_said_before_or_after_the_login() -> None:
    world = World()
    soon, late = world.login(), world.login(account="bert")
    world.client_log.identified(soon, "K-9 6.8")
    world.clock.advance(GATHERING_TIME)
    world.client_log.identified(late, "mutt 2.2")
    world.clock.advance(GATHERING_TIME)
    assert [(each.account, each.program) for entries in world.told for each in entries] == [
        ("anna@example.test", "K-9 6.8"),
        ("bert", ""),
        ("bert", "mutt 2.2"),
    ]


def test_each_rests_for_as_long() -> None:
    world = World()
    world.login()
    world.clock.advance(GATHERING_TIME - 1)
    late = world.login(account="bert")
    world.clock.advance(1)
    assert [each.account for each in world.told[0]] == ["anna@example.test"]
    world.client_log.identified(late, "mutt")
    world.clock.advance(GATHERING_TIME - 1)
    assert [each.program for each in world.told[1]] == ["mutt"]
    assert not world.clock.getDelayedCalls()


def test_at_the_end_none_rests() -> None:
    world = World()
    world.login()
    world.clock.advance(GATHERING_TIME)
    world.login()
    late = world.login(account="bert")
    world.client_log.flush()
    assert [[each.account for each in entries] for entries in world.told] == [["anna@example.test"], ["bert"]]
    assert late.reported
    world.clock.advance(GATHERING_TIME)
    assert len(world.told) == 2
    assert not world.clock.getDelayedCalls()


def test_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_LOGINS", 3)
    monkeypatch.setattr(module, "MAX_KNOWN_LOGINS", 2)
    world = World()
    for number in range(5):
        world.login(account=f"{number}")
    world.clock.advance(GATHERING_TIME)
    assert [each.account for each in world.told[0]] == ["0", "1", "2"]
    # The one that was told longest ago is not remembered.
    for number in range(3):
        world.login(account=f"{number}")
    world.clock.advance(GATHERING_TIME)
    assert [each.account for each in world.told[1]] == ["0"]


def test_switched_off_nothing_is_gathered() -> None:
    world = World()
    world.login()
    world.enabled = False
    world.client_log.identified(world.login(account="bert"), "mutt")
    world.clock.advance(GATHERING_TIME)
    assert world.told == []
    assert not world.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("said", "program"),
    [
        ("name=Thunderbird version=128.0 vendor=Mozilla", "Thunderbird 128.0"),
        ("os=iOS os-version=17.1 (21B80) name=iPhone Mail version=21B80", "iPhone Mail 21B80"),
        ("vendor=Example address=Somewhere 1", ""),
        ("version=1", "1"),
        ("name=a\x00b\r\nc", "abc"),
        ("", ""),
        ("name=" + "x" * 500, "x" * 80),
    ],
)
def test_only_name_and_version_of_a_client_are_kept(said: str, program: str) -> None:
    assert program_of(said) == program


class ServerLink:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def report(self, message: ClientsSeen) -> None:
        self.seen.append(message.rows)


def test_a_worker_tells_the_master_in_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROWS_AT_ONCE", 2)
    link: Any = ServerLink()
    report_to_master(link, [evolve(ANNA, account=f"{number}") for number in range(3)])
    assert [len(rows) for rows in link.seen] == [2, 1]
    assert link.seen[0][0] == as_row(evolve(ANNA, account="0"))


class Writer(LedgerWriter):
    """Whose thread is this one."""

    def __init__(self, directory: Path, settings: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        reactor: Any = Clock()
        reactor.getThreadPool = lambda: None

        def now(_reactor: object, _pool: object, call: Any, *arguments: Any, **more: Any) -> Deferred[Any]:
            result: Deferred[Any] = succeed(None)
            return result.addCallback(lambda _none: call(*arguments, **more))

        monkeypatch.setattr(writing, "deferToThreadPool", now)
        config: Any = type("Config", (), {"ledger": settings})
        super().__init__(reactor, directory, lambda: config)
        self.clock: Clock = reactor


def test_the_master_writes_what_workers_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, Ledger(), monkeypatch)
    for told in (["x"], [{"a": 1}], [["nonsense"]], [as_row(ANNA), 7]):
        writer.take(told)
    assert Database(tmp_path).seen() == []
    writer.clock.advance(writing.GATHER)
    assert [each.entry for each in Database(tmp_path).seen()] == [ANNA]
    writer.take([as_row(evolve(ANNA, account="bert"))])
    writer.stop()
    assert [each.entry.account for each in Database(tmp_path).seen()] == ["anna@example.test", "bert"]


def test_bounds_are_those_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, Ledger(entries_per_account=Count(2)), monkeypatch)
    writer.add([evolve(ANNA, port=number) for number in range(5)])
    writer.clock.advance(writing.GATHER)
    assert len(Database(tmp_path).seen()) == 2


def test_a_full_queue_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_WAITING", 3)
    writer = Writer(tmp_path, Ledger(), monkeypatch)
    writer.add([evolve(ANNA, port=number) for number in range(9)])
    writer.stop()
    assert len(Database(tmp_path).seen()) == 3


def test_where_it_cannot_be_written_the_server_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("")
    writer = Writer(tmp_path / "state", Ledger(), monkeypatch)
    writer.add([ANNA])
    writer.clock.advance(writing.GATHER)
    writer.add([ANNA])
    writer.clock.advance(writing.GATHER)
    assert not writer.clock.getDelayedCalls()


USE = CredentialUse("c1", "anna@example.test", "192.0.2.0/24", "imap", 1_790_000_000)


def test_a_worker_reports_uses_of_app_passwords_and_the_master_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROWS_AT_ONCE", 2)
    link: Any = ServerLink()
    report_uses(link, [USE._replace(credential=f"c{number}") for number in range(3)])
    assert [len(rows) for rows in link.seen] == [2, 1]
    writer = Writer(tmp_path, Ledger(), monkeypatch)
    for rows in link.seen:
        writer.take_uses(rows)
    assert Database(tmp_path).uses(["c0"]) == {}
    writer.clock.advance(writing.GATHER)
    found = Database(tmp_path).uses(["c0", "c1", "c2", "c3"])
    assert sorted(found) == ["c0", "c1", "c2"]
    assert astuple(found["c1"]) == USE


@pytest.mark.parametrize(
    "row",
    [
        "c1",
        ["c1"],
        ["", *USE[1:]],
        ["c\n", *USE[1:]],
        ["c" * 300, *USE[1:]],
        [*USE[:4], -1],
        [*USE[:4], 2**70],
        [*USE[:4], True],
        [*USE[:4], "1"],
        [1, *USE[1:]],
        [*USE, 1],
    ],
    ids=["text", "short", "empty", "control", "long", "negative", "huge", "bool", "digits", "number", "more"],
)
def test_malformed_uses_of_a_worker_are_ignored(row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, Ledger(), monkeypatch)
    writer.take_uses([row, list(USE._replace(credential="c2"))])
    writer.stop()
    assert list(Database(tmp_path).uses(["c1", "c2", "", "c" * 300])) == ["c2"]


def test_no_uses_are_kept_without_a_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path, Ledger(enabled=False), monkeypatch)
    writer.take_uses([list(USE)])
    assert not writer.clock.getDelayedCalls()


def test_uses_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_WAITING", 3)
    writer = Writer(tmp_path, Ledger(), monkeypatch)
    for number in range(9):
        writer.take_uses([list(USE._replace(credential=f"c{number}"))])
    writer.stop()
    assert len(Database(tmp_path).uses(f"c{number}" for number in range(9))) == 3
