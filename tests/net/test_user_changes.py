"""The end of the sessions of changed users: those alone, in one pass over the connections, whatever a back end does."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from zope.interface import alsoProvides

from mailserver.auth.backends.backends import Backends
from mailserver.auth.changed_users import SessionsOf
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import IChanges
from mailserver.auth.limits import Limits
from mailserver.config.model import BackendUse
from mailserver.net.admin.sessions import CUT_AFTER, Sessions
from mailserver.net.admin.user_changes import EVERY, REASON, UserChanges


@define
class _Info:
    session_id: str = "s"
    protocol: str = "imap"
    peer: None = None
    peer_port: None = None
    tls: None = None


@define(eq=False, slots=False)
class _Connection:
    name: str
    info: _Info = field(factory=_Info)
    since: float = 0
    mailbox_name: None = None
    received: int = 0
    sent: int = 0
    asked: int = 0
    credential: str = ""
    delegate: str = ""
    farewells: list[bytes] = field(factory=list)

    @property
    def user(self) -> str:
        self.asked += 1
        return self.name

    def log(self, event: str, **facts: object) -> None:
        pass

    def stop(self, farewell: bytes) -> None:
        self.farewells.append(farewell)

    def cut(self) -> None:
        pass


class _Port:
    class listener:  # noqa: N801 - an attribute of ports
        family = "imap"

    def __init__(self, connections: list[_Connection]) -> None:
        self.connections = connections


class World:
    def __init__(self, *names: str) -> None:
        self.connections = [_Connection(name) for name in names]
        self.clock = Clock()
        self.changed: Any = frozenset()
        sessions = Sessions(lambda: cast("Any", [_Port(self.connections)]), cast("Any", self.clock))
        self.changes = UserChanges(self._changed, sessions, self.clock)
        self.changes.start()

    def _changed(self) -> frozenset[str] | None:
        changed, self.changed = self.changed, frozenset()
        if isinstance(changed, Exception):
            raise changed
        return cast("frozenset[str] | None", changed)

    def which(self) -> list[int]:
        """The places of the connections that end now."""
        for connection in self.connections:
            connection.farewells.clear()
        self.clock.advance(EVERY)
        return [at for at, connection in enumerate(self.connections) if connection.farewells]

    def ended(self) -> list[str]:
        self.clock.advance(EVERY)
        return [connection.name for connection in self.connections if connection.farewells]


def test_the_sessions_of_changed_users_end() -> None:
    world = World("anna", "ben", "anna", "")
    assert world.ended() == []
    world.changed = frozenset({"anna", "carla"})
    assert world.ended() == ["anna", "anna"]
    assert world.connections[0].farewells == [b"* BYE %b\r\n" % REASON.encode()]
    world.changed = None
    assert world.ended() == ["anna", "ben", "anna"]


def test_many_changed_users_cost_one_pass_over_the_connections() -> None:
    world = World(*(f"user{number}" for number in range(300)))
    world.changed = frozenset(f"other{number}" for number in range(300))
    assert world.ended() == []
    assert sum(connection.asked for connection in world.connections) <= 2 * 300


def test_a_fault_of_a_back_end_does_not_end_the_looks(capfd: pytest.CaptureFixture[str]) -> None:
    world = World("anna")
    world.changed = RuntimeError("broken")
    assert world.ended() == []
    world.changed = frozenset({"anna"})
    assert world.ended() == ["anna"]
    world.changes.stop()
    world.changes.stop()
    world.changed = frozenset({"anna"})
    assert len(world.connections[0].farewells) == 1


def test_parts_of_sessions_end_alone() -> None:
    world = World("anna", "anna", "anna", "anna@a.test", "ben@a.test")
    _main, phone, by_ben, *_of_domain = world.connections
    phone.credential, by_ben.delegate = "phone", "ben@a.test"
    world.changed = frozenset({SessionsOf("anna", "phone")})
    assert world.which() == [1]
    world.changed = frozenset({SessionsOf("anna", delegate="ben@a.test")})
    assert world.which() == [2]
    # Another password ends what that let in: of Ben also the session that he has as Anna.
    world.changed = frozenset({SessionsOf("ben@a.test", credential="")})
    assert world.which() == [2, 4]
    world.changed = frozenset({SessionsOf("anna", credential="")})
    assert world.which() == [0]
    world.changed = frozenset({SessionsOf("@a.test", limits=Limits(protocols=frozenset({"pop3"})))})
    assert world.which() == [2, 3, 4]
    world.changed = frozenset({SessionsOf("@a.test", limits=Limits(protocols=frozenset({"imap"})))})
    assert world.which() == []
    world.changed = frozenset({SessionsOf("anna", limits=Limits(password_protocols=frozenset()))})
    assert world.which() == [0]
    world.changed = frozenset({"ben@a.test"})
    assert world.which() == [2, 4]


def test_what_could_not_be_ended_is_ended_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    world = World("anna", "ben", "anna")

    def fail(*_arguments: object) -> None:
        raise RuntimeError("broken")

    for changed, expected in ((frozenset({"anna"}), [0, 2]), (None, [0, 1, 2])):
        world.changed = changed
        with monkeypatch.context() as broken:
            broken.setattr(Sessions, "end_of_users", fail)
            assert world.which() == []
        world.changed = RuntimeError("and the next answer is an exception")
        assert world.which() == expected
        assert world.which() == []


def test_a_session_that_cannot_be_asked_is_cut_and_keeps_no_other_from_ending() -> None:
    world = World("anna", "anna", "anna")
    cut: list[_Connection] = []

    def fail(*_arguments: object, **_facts: object) -> None:
        raise RuntimeError("broken")

    world.connections[0].stop = fail  # type: ignore[method-assign]
    world.connections[1].cut = fail  # type: ignore[method-assign]
    for connection in (world.connections[0], world.connections[2]):
        connection.cut = partial(cut.append, connection)  # type: ignore[method-assign]
    world.changed = frozenset({"anna"})
    assert world.which() == [1, 2]
    world.clock.advance(CUT_AFTER)
    assert cut == [world.connections[0], world.connections[2]]


def test_a_back_end_that_raises_takes_no_answer_of_another_with_it(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def changed_users(self) -> None:
            raise RuntimeError("broken")

    class Answers:
        def changed_users(self) -> frozenset[str]:
            return frozenset({"anna"})

    backends = Backends(DirectHasher(), cast("Any", None))
    for number, backend in enumerate((Answers(), Broken(), Answers())):
        alsoProvides(backend, IChanges)
        backends._made[BackendUse(f"{number}:")] = backend
    assert backends.changed_users() == {"anna"}
    assert "RuntimeError: broken" in caplog.text, "logged whole"
