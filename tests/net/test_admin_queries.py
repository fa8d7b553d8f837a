"""The control socket's questions: asked of every worker, answered as one."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailserver.config.model import Listener
from mailserver.net.admin.admin_queries import LONGEST_REASON, AdminQueries, SingleProcess, is_reason
from mailserver.net.admin.control_socket import (
    MOST,
    REQUEST_TIME,
    Arguments,
    BadRequest,
    Command,
    ControlFactory,
    ControlProtocol,
    DataAnswer,
)
from mailserver.net.admin.sessions import CUT_AFTER, Sessions
from mailserver.net.admin.status import (
    ACCOUNT_OCTETS,
    CONNECTION_OCTETS,
    INDEX_OCTETS,
    MESSAGE_OCTETS,
    OTHER_OCTETS,
    Status,
    session_octets_expected,
)
from mailserver.net.ipc.event_counters import EventCounters, EventTotals
from mailserver.net.ipc.message_schema import MAX_VALUES, Json
from mailserver.net.ipc.server_link import QUERY_TIMEOUT
from mailserver.net.ipc.worker_messages import RequestFailed


def session(since: int, user: str) -> dict[str, Json]:
    """A row of `who`."""
    return {"session": f"1.{user}", "user": user, "protocol": "imaps", "peer": None, "port": 0, "tls": None, "name": None,
            "since": since, "mailbox": None, "received": 0, "sent": 0, "delegate": None}  # fmt: skip


def status(
    connections: int = 0, certificates: Sequence[Json] = (), measures: Json = None, **others: Json
) -> dict[str, Json]:
    """What a worker tells of itself."""
    place: Json = {"place": "192.0.2.1:993", "protocol": "imaps", "tls": "implicit", "cleartext": False,
                   "connections": connections}  # fmt: skip
    return {
        "pid": 100, "since": 5, "memory": 7, "descriptors": 1, "descriptors_most": 2, "listeners": [place],
        "sessions": {"all": 0, "logged_in": 0, "by_protocol": {}, "by_tls": []}, "certificates": list(certificates),
        "event_counters": [["login", "imaps", "TLSv1.3", connections]],
        "measures": {} if measures is None else measures, **others,
    }  # fmt: skip


CERTIFICATE: Json = {"host": "mail.example.test", "domain": "example.test", "not_after": "2026-12-01", "expires": 5, "days_left": 5,
                     "fingerprint": "ab", "issuer": "CN=x", "origin": "file", "warning": None, "default": True}  # fmt: skip


class Master:
    """A worker pool whose workers answer what the test says."""

    def __init__(self, answers: dict[int, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Json, float]] = []
        self.totals = EventTotals()
        self.restarts = 3
        self.exposures = lambda: 7
        self.bans = lambda: 5
        self.renewals = lambda: [{"host": "mail.example.test", "failures": 1}]

    def ask(self, what: str, body: Json, seconds: float = QUERY_TIMEOUT) -> Deferred[dict[int, Any]]:
        self.asked.append((what, body, seconds))
        return succeed(dict(self.answers))

    def workers(self) -> list[dict[str, Json]]:
        return [{"worker": worker, "pid": 100 + worker, "since": 5, "state": "serving"} for worker in self.answers]


def ask(pool: Any, name: str, **arguments: Any) -> DataAnswer:
    results: list[Any] = []
    command: Command = AdminQueries(pool).commands()[name]
    command(arguments).addCallback(results.append)
    [told] = results
    assert isinstance(told, DataAnswer)
    return told


def test_the_sessions_of_all_workers_by_their_age() -> None:
    master = Master({0: [session(3, "a")], 1: [session(2, "b"), session(4, "c")]})
    told = ask(master, "who", user="x")
    assert told == DataAnswer(
        [{**session(2, "b"), "worker": 1}, {**session(3, "a"), "worker": 0}, {**session(4, "c"), "worker": 1}]
    )
    assert master.asked == [("who", {"user": "x", "protocol": None}, QUERY_TIMEOUT)]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (None, "worker 1 (pid 101) does not answer"),
        (RequestFailed(1, "a sentence"), "worker 1 (pid 101): a sentence"),
        ("what?", "worker 1 (pid 101) sent a malformed answer: "),
        ({"error": "a sentence"}, "worker 1 (pid 101) sent a malformed answer: "),
    ],
)
def test_a_worker_that_does_not_answer_is_shown_as_such(answer: Any, line: str) -> None:
    for name, good, arguments in (
        ("who", [], {}),
        ("kick", [], {"target": "anna"}),
        ("status", status(), {}),
    ):
        told = ask(Master({0: good, 1: answer}), name, **arguments)
        assert not told.ok
        [found] = told.lines
        assert found == line or (line.endswith(": ") and found.startswith(line))


def test_status_adds_up_what_workers_have_in_common() -> None:
    told = ask(Master({0: status(2), 1: None, 2: status(3, [CERTIFICATE], {"accounts_kept": [1, 2]})}), "status")
    assert isinstance(told.data, dict)
    [listener] = cast("list[dict[str, Json]]", told.data["listeners"])
    assert (listener["place"], listener["protocol"], listener["connections"]) == ("192.0.2.1:993", "imaps", 5)
    assert told.data["event_counters"] == [["login", "imaps", "TLSv1.3", 5]]
    assert told.data["restarts"] == 3
    assert told.data["exposures"] == 7
    assert told.data["acme"] == [{"host": "mail.example.test", "failures": 1}]
    assert told.data["certificates"] == [CERTIFICATE]
    workers = cast("list[dict[str, Json]]", told.data["workers"])
    assert [(each["worker"], each["state"], each["answers"]) for each in workers] == [
        (0, "serving", True),
        (1, "serving", False),
        (2, "serving", True),
    ]
    assert [each.get("accounts_kept") for each in workers] == [None, None, (1, 2)]


@pytest.mark.parametrize(
    "lie",
    [
        [],
        {},
        status(memory="much"),
        status(memory=10**4000),
        status(sessions={}),
        status(sessions={"all": 1, "logged_in": 1, "by_protocol": {}, "by_tls": [["imaps", "none", "x"]]}),
        status(listeners=[{"place": "192.0.2.1:993"}]),
        status(listeners={"place": 1}),
        status(certificates=[{"host": "mail.example.test"}]),
        status(certificates=[{**cast("dict[str, Json]", CERTIFICATE), "issuer": "\ud800"}]),
        status(measures={"accounts_kept": ["x", 2]}),
        status(measures={"penalties": {"a": 1}}),
        status(measures={"anything": [[]]}),
        status(anything=1),
        status(measures=[1]),
        {"error": ["x"]},
    ],
)
def test_a_worker_that_lies_spoils_nothing_of_the_others(lie: Json) -> None:
    told = ask(Master({0: status(2, [CERTIFICATE]), 1: lie}), "status")
    [line] = told.lines
    assert line.startswith("worker 1 (pid 101) sent a malformed answer: ")
    assert isinstance(told.data, dict)
    assert told.data["certificates"] == [CERTIFICATE]
    assert told.data["event_counters"] == [["login", "imaps", "TLSv1.3", 2]]
    told = ask(Master({0: [session(1, "a")], 1: [{**session(2, "b"), "since": None}]}), "who")
    assert told.data == [{**session(1, "a"), "worker": 0}]
    [line] = told.lines
    assert line.startswith("worker 1 (pid 101) sent a malformed answer: ")


def test_a_worker_that_says_it_is_another_is_shown_as_itself() -> None:
    told = ask(Master({1: status(measures={"worker": 0, "state": 7, "answers": 0, "seat": 9})}), "status")
    [worker] = cast("dict[str, Any]", told.data)["workers"]
    assert (worker["worker"], worker["state"], worker["answers"]) == (1, "serving", True)


def test_status_has_the_keys_of_the_release_before_beside_the_present_ones() -> None:
    told = ask(Master({4: status(1)}), "status")
    data = cast("dict[str, Any]", told.data)
    assert data["tally"] == data["event_counters"] != []
    [worker] = data["workers"]
    assert worker["seat"] == worker["worker"] == 4


def test_the_memory_of_sessions_is_beside_what_is_to_be_expected() -> None:
    measures: dict[str, Json] = {
        "certificates": [],
        "accounts_in_use": 200,
        "accounts_kept": [10, 64],
        "indexes": [3, 256],
        "messages_in_use": 1000,
        "messages_kept": [0, 5],
        "message_octets": [7, 16],
    }
    replies: list[Any] = []
    Status(list, lambda: dict(measures), EventCounters()).status(None).addCallback(replies.append)
    used, most = replies[0]["measures"]["session_octets"]
    assert used >= 0
    assert most == OTHER_OCTETS + 210 * ACCOUNT_OCTETS + 3 * INDEX_OCTETS + 1000 * MESSAGE_OCTETS + 7
    assert session_octets_expected(1000, measures) == most + 1000 * CONNECTION_OCTETS


def test_one_process_asks_itself_and_its_faults_are_told() -> None:
    def broken(_body: Json) -> Deferred[Json]:
        raise ValueError("a bug")

    asked: list[Json] = []
    pool = SingleProcess({"who": lambda body: asked.append(body) or succeed([session(1, "a")]), "kick": broken})
    assert ask(pool, "who").data == [{**session(1, "a"), "worker": 0}]
    assert asked == [{"user": None, "protocol": None}]
    told = ask(pool, "kick", target="anna")
    assert not told.ok
    assert "internal error" in told.lines[0]


@pytest.mark.parametrize("reason", ["moving house", "x" * LONGEST_REASON, "a [b]"])
def test_reasons_that_a_farewell_can_say(reason: str) -> None:
    assert is_reason(reason)


@pytest.mark.parametrize("reason", ["", " ", "a\r\nb", "a\0b", "\x1b[0m", "[ALERT] x", " [x", "é", "x" * 201])
def test_reasons_that_no_farewell_can_say(reason: str) -> None:
    assert not is_reason(reason)
    with pytest.raises(BadRequest):
        ask(Master({}), "kick", target="anna", reason=reason)


def say(line: bytes, **commands: Command) -> tuple[dict[str, Any], StringTransport]:
    protocol = ControlFactory(commands, clock=Clock()).buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(line)
    return json.loads(transport.value()), transport


def test_a_command_gets_its_arguments_and_answers_with_data() -> None:
    seen: list[Arguments] = []

    def do(arguments: Arguments) -> Deferred[DataAnswer]:
        seen.append(arguments)
        return succeed(DataAnswer([1], lines=("a",)))

    answer, _ = say(b'{"do": "it", "how": "well"}\n', it=do)
    assert answer == {"ok": True, "lines": ["a"], "data": [1]}
    assert seen == [{"how": "well"}]


def test_what_a_command_raises_or_fails_with_is_no_answer_to_the_client() -> None:
    def raises(_arguments: Arguments) -> Deferred[DataAnswer]:
        raise BadRequest("it takes nothing")

    assert say(b'{"do": "it"}\n', it=raises)[0] == {"ok": False, "lines": ["it takes nothing"]}
    answer, _ = say(b'{"do": "it"}\n', it=lambda _arguments: fail(RuntimeError("secret")))
    assert answer["ok"] is False
    assert "secret" not in answer["lines"][0]


def test_a_line_without_an_end_is_refused_and_the_connection_closed() -> None:
    answer, transport = say(b"x" * (ControlProtocol.MAX_LENGTH + 1))
    assert answer["ok"] is False
    assert transport.disconnecting


class Aborted(StringTransport):
    """Tells its protocol when it is cut, as a real one does."""

    protocol: Any = None

    def abortConnection(self) -> None:
        super().abortConnection()
        self.protocol.connectionLost(Failure(ConnectionAborted()))


def opened(factory: ControlFactory) -> Aborted:
    transport = Aborted()
    transport.protocol = factory.buildProtocol(None)
    transport.protocol.makeConnection(transport)
    return transport


def test_a_connection_has_one_request_whatever_comes_behind_it() -> None:
    done: list[Arguments] = []
    transport = opened(ControlFactory({"it": lambda a: done.append(a) or Deferred()}, clock=Clock()))
    transport.protocol.dataReceived(b'{"do": "it"}\n' * 1000 + b"\n" * 10000)
    transport.protocol.dataReceived(b"x" * (ControlProtocol.MAX_LENGTH + 1))
    assert len(done) == 1
    assert not transport.value()


def test_a_request_that_does_not_come_and_an_answer_that_is_not_read_have_their_time() -> None:
    clock = Clock()
    factory = ControlFactory({"it": lambda _a: succeed((True, [])), "long": lambda _a: Deferred()}, clock=clock)
    silent, unread, working = opened(factory), opened(factory), opened(factory)
    unread.protocol.dataReceived(b'{"do": "it"}\n')
    assert unread.disconnecting
    working.protocol.dataReceived(b'{"do": "long"}\n')
    clock.advance(REQUEST_TIME - 1)
    assert not any(each.disconnected for each in (silent, unread, working))
    clock.advance(1)
    assert (silent.disconnected, unread.disconnected, working.disconnected) == (True, True, False)
    clock.advance(3600)
    assert not working.disconnected, "what is being done takes as long as it takes"


def test_who_says_nothing_makes_room_for_who_asks() -> None:
    factory = ControlFactory({"long": lambda _a: Deferred()}, clock=Clock())
    first = opened(factory)
    first.protocol.dataReceived(b'{"do": "long"}\n')
    silent = [opened(factory) for _ in range(MOST)]
    assert [each.disconnected for each in (first, *silent)] == [False, True, *[False] * (MOST - 1)]
    for each in silent[1:]:
        each.protocol.dataReceived(b'{"do": "long"}\n')
    assert opened(factory).disconnected, "all others are at work"


def test_what_is_no_text_is_refused() -> None:
    for line in (
        rb'{"do": "it", "host": "\ud800"}',
        rb'{"do": "it", "\udfff": "x"}',
        rb'{"do": "it", "a": ["\ud800"]}',
        b'{"do": "it", "a": [%b0]}' % (b"[]," * MAX_VALUES),
    ):
        answer, _ = say(line + b"\n", it=lambda _a: pytest.fail("done"))
        assert "unknown request" in answer["lines"][0]


class Connection:
    def __init__(self, user: str) -> None:
        self.user = user
        self.delegate = ""
        self.info = type(
            "Info",
            (),
            {"session_id": f"1.{user}", "protocol": "imaps", "peer": "192.0.2.1", "peer_port": 4000, "tls": None},
        )
        self.since = 1.0
        self.mailbox_name = None
        self.received = self.sent = 0
        self.stopped: list[bytes] = []
        self.cuts = 0
        self.logged: list[str] = []

    def log(self, event: str, **_fields: object) -> None:
        self.logged.append(event)

    def stop(self, farewell: bytes) -> None:
        self.stopped.append(farewell)

    def cut(self) -> None:
        self.cuts += 1


def test_who_does_not_go_is_cut() -> None:
    clock = Clock()
    anna, ben = Connection("anna"), Connection("ben")
    listener = Listener("imaps")
    port: Any = type("Port", (), {"listener": listener, "connections": {anna, ben}})
    kicked: list[Json] = []
    sessions = Sessions(lambda: [port], clock)
    sessions.kick({"target": "anna", "reason": "why"}).addCallback(kicked.append)
    [[row]] = cast("Any", kicked)
    assert [row[key] for key in ("session", "user", "protocol", "peer", "port")] == [
        "1.anna", "anna", "imaps", "192.0.2.1", 4000,
    ]  # fmt: skip
    assert (anna.stopped, anna.logged, anna.cuts) == ([b"* BYE why\r\n"], ["kicked"], 0)
    clock.advance(CUT_AFTER)
    assert anna.cuts == 1
    assert (ben.stopped, ben.cuts) == ([], 0)


class Peer(StringTransport):
    """A connection whose other end is this process's user."""

    def getHandle(self) -> socket.socket:
        self.pair = socket.socketpair(socket.AF_UNIX)
        return self.pair[0]


@pytest.mark.parametrize(("uid", "obeyed"), [(os.geteuid(), True), (os.geteuid() + 4711, os.geteuid() == 0)])
def test_a_guarded_command_is_for_root_and_the_own_user(
    monkeypatch: pytest.MonkeyPatch, uid: int, obeyed: bool
) -> None:
    monkeypatch.setattr("mailserver.net.admin.control_socket.os.geteuid", lambda: uid)
    done: list[Arguments] = []

    def change(arguments: Arguments) -> Deferred[Any]:
        done.append(arguments)
        return succeed((True, []))

    factory = ControlFactory({"change": change, "look": change}, frozenset({"change"}), clock=Clock())
    protocol = factory.buildProtocol(None)
    transport = Peer()
    protocol.makeConnection(transport)
    protocol.dataReceived(b'{"do": "change"}\n')
    assert bool(done) == obeyed
    assert json.loads(transport.value())["ok"] == obeyed
    for end in transport.pair:
        end.close()
    other = StringTransport()
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(other)
    protocol.dataReceived(b'{"do": "look"}\n')
    assert json.loads(other.value())["ok"]


def test_a_guarded_command_of_another_user_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ControlProtocol, "_peer", 4711)
    protocol = ControlFactory(
        {"change": lambda _a: pytest.fail("done")}, frozenset({"change"}), clock=Clock()
    ).buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(b'{"do": "change"}\n')
    answer = json.loads(transport.value())
    assert not answer["ok"]
    assert "only root, or its user" in answer["lines"][0]
