"""The schema of messages from workers and the zygote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mailserver.net.ipc.frames import to_pickle
from mailserver.net.ipc.message_schema import (
    MAX_ITEMS,
    MAX_KEYS,
    MAX_STRING,
    MAX_VALUES,
    BadMessage,
    parse,
    structure,
    structure_text,
    to_text,
    unstructure,
)
from mailserver.net.ipc.worker_messages import (
    BROADCASTS,
    MAX_BODY,
    MAX_EVENT_ROWS,
    MAX_ROWS,
    WORKER_MESSAGES,
    ZYGOTE_MESSAGES,
    Broadcast,
    ChildEnded,
    ClientsSeen,
    ConnectionCountsChanged,
    CredentialsUsed,
    ExposuresTaken,
    ExposureTaken,
    ForkFailed,
    GuessMade,
    Heartbeat,
    LogFileOpened,
    NetworksKnown,
    PasswordExposed,
    PasswordsVerified,
    PenaltiesChanged,
    Reply,
    ReplyPart,
    RequestFailed,
    SessionRow,
    StatusRequest,
    WorkerFailed,
    WorkerForked,
    WorkerReady,
    ZygoteFailed,
    ZygoteHeartbeat,
    ZygoteReady,
    decode_worker_message,
    decode_zygote_message,
    encode_worker_message,
    encode_zygote_message,
)

OF_WORKERS = (
    WorkerReady(),
    WorkerFailed("no room"),
    Heartbeat(3, 1 << 30, (("login", "imaps", "TLSv1.3", 2),)),
    ClientsSeen((["anna", "x", "imaps", 993],)),
    CredentialsUsed((["c1", "anna", "192.0.2.0/24", "imap", 1_790_000_000],)),
    PasswordExposed({"user": "anna"}),
    NetworksKnown(([1 << 63, 20_000],)),
    GuessMade("192.0.2.7", "anna", "(4 characters)", "0f" * 16, "imap", "7KQF-2M9X", is_proof=True),
    StatusRequest(),
    Broadcast("penalties", '{"news":[]}'),
    Reply(7, {"faults": []}),
    ReplyPart(7, ({"session": "1.2"},)),
    RequestFailed(7, "no"),
)
OF_THE_ZYGOTE = (
    ZygoteReady(), ZygoteFailed("no"), ZygoteHeartbeat(2), WorkerForked(1, 77), ForkFailed(1, "no memory"),
    ChildEnded(77, -9), LogFileOpened(),
)  # fmt: skip
BODIES = (
    ConnectionCountsChanged((((), 5), (("192.0.2.1", "anna"), 2))),
    PenaltiesChanged((["failed", "anna", "192.0.2.0/24", "00"],)),
    PasswordsVerified((("anna", "00", 0.5), ("bert", "00", 3))),
    NetworksKnown(([1, 2],)),
    ExposureTaken(("anna", "192.0.2.0/24", "00")),
    ExposuresTaken((("anna", "192.0.2.0/24", "00"),)),
)


def test_each_message_comes_back_as_it_was() -> None:
    assert {type(message) for message in OF_WORKERS} == set(WORKER_MESSAGES.values())
    assert {type(message) for message in OF_THE_ZYGOTE} == set(ZYGOTE_MESSAGES.values())
    assert {type(body) for body in BODIES} == set(BROADCASTS.values())
    for message in OF_WORKERS:
        assert decode_worker_message(encode_worker_message(message)) == message
    for message in OF_THE_ZYGOTE:
        assert decode_zygote_message(encode_zygote_message(message)) == message
    for body in BODIES:
        assert structure(json.loads(json.dumps(unstructure(body))), type(body)) == body
        assert structure_text(to_text(body), type(body)) == body


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"news":[%s0]}' % ("[]," * MAX_VALUES)])
def test_a_text_of_a_peer_that_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(BadMessage):
        structure_text(text, PenaltiesChanged)


@pytest.mark.parametrize("name", [",[{" * 85, '",\\' * 85, '\\\\",[{' * 50])
def test_names_that_clients_choose_count_as_one_value_each(name: str) -> None:
    message = ClientsSeen(tuple((name, number, name) for number in range(1000)))
    frame = encode_worker_message(message)
    assert sum(map(frame.count, (b",", b"[", b"{"))) > MAX_VALUES
    decoded = decode_worker_message(frame)
    assert isinstance(decoded, ClientsSeen)
    assert [tuple(row) for row in decoded.rows] == list(message.rows)


@pytest.mark.parametrize("start", [b'{"a":"', b'{"a":"\\', b'{"a":"\\\\', b'{"a":"",\\"'])
@pytest.mark.parametrize("end", [b'","b":[', b'\\","b":[', b'\\\\","b":['])
def test_values_behind_a_string_are_counted_however_it_is_quoted(start: bytes, end: bytes) -> None:
    text = start + end + b"[]," * MAX_VALUES + b"0]}"
    try:
        count = len(json.loads(text)["b"])
    except ValueError:
        count = 0
    assert count in {0, MAX_VALUES + 1}
    with pytest.raises(BadMessage, match="more than 150000 values" if count else "values|JSON"):
        parse(text)


def heartbeat(**fields: Any) -> bytes:
    return json.dumps({"type": "heartbeat", "sessions": 1, "memory": 2, "event_counters": [], **fields}).encode()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (to_pickle({"type": "ready"}), "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"{}", "it has no known type"),
        (b"[]", "it has no known type"),
        (b'{"type":["ready"]}', "it has no known type"),
        (b'{"type":"forked","request":1,"pid":1}', "it has no known type"),
        (b'{"type":"ready","x":1}', "extra fields found (x) @ $"),
        (b'{"type":"reply","request":1}', "required field missing @ $.body"),
        (heartbeat(sessions="1"), "invalid value for type, expected int @ $.sessions"),
        (heartbeat(sessions=True), "invalid value for type, expected int @ $.sessions"),
        (heartbeat(memory=1.5), "invalid value for type, expected int @ $.memory"),
        (heartbeat(memory=1 << 63), "invalid value for type, expected int @ $.memory"),
        (b'{"type":"failed","reason":"\\ud800"}', "invalid value for type, expected str @ $.reason"),
        (
            b'{"type":"failed","reason":"%b"}' % (b"x" * (MAX_STRING + 1)),
            "invalid value for type, expected str @ $.reason",
        ),
        (b'{"type":"password exposed","mark":["user"]}', "@ $.mark"),
        (b'{"type":"clients seen","rows":"abc"}', "@ $.rows"),
        (b'{"type":"clients seen","rows":null}', "@ $.rows"),
        (b'{"type":"clients seen","rows":{"a":1}}', "@ $.rows"),
        (b'{"type":"networks known","rows":"abc"}', "@ $.rows"),
        (json.dumps({"type": "clients seen", "rows": [0] * (MAX_ROWS + 1)}).encode(), "@ $"),
        (b'{"type":"broadcast","kind":"penalties","body":{"news":[]}}', "@ $"),
        (b'{"type":"broadcast","kind":"penalties","body":"%b"}' % (b"x" * (MAX_BODY + 1)), "@ $"),
        *(
            (b'{"type":"reply","request":1,"body":[%b0]}' % (value * MAX_VALUES), "more than 150000 values")
            for value in (b"[],", b"{},", b"1,", b'"",')
        ),
    ],
)
def test_a_malformed_message_is_refused_with_the_place_of_the_fault(frame: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as refused:
        decode_worker_message(frame)
    assert str(refused.value).endswith(reason)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        "x",
        [1],
        [["login"]],
        [["a", "b", "c", "d"]],
        [["a", "b", "c", 1]] * (MAX_EVENT_ROWS + 1),
        [["a", "b", "c", -1]],
        [["a", "b", "c", 10**4000]],
        [["a", "b", "c" * 65, 1]],
        [["a", "b", "\u00e9", 1]],
        [["a", "b", "\ud800", 1]],
    ],
)
def test_malformed_event_counters_are_refused(rows: Any) -> None:
    with pytest.raises(BadMessage):
        decode_worker_message(heartbeat(event_counters=rows))


def test_a_reason_is_one_short_line() -> None:
    frame = json.dumps({"type": "ready", "\x1b[2J\n" + "y" * 5000: 1}).encode()
    with pytest.raises(BadMessage) as refused:
        decode_worker_message(frame)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 2100


def test_rows_of_sessions_have_every_field() -> None:
    row = SessionRow("1.a", "anna", "imaps", None, 0, None, None, 5, "INBOX", 1, 2)
    assert structure([unstructure(row)], tuple[SessionRow, ...]) == (row,)
    for lie in ({"since": None}, {"user": 5}, {"port": "x"}, {"more": 1}):
        with pytest.raises(BadMessage):
            structure([{**unstructure(row), **lie}], tuple[SessionRow, ...])


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_is_finite(number: float) -> None:
    with pytest.raises(BadMessage):
        structure(number, float)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (["a"] * (MAX_ITEMS + 1), tuple[str, ...]),
        ([["a"]] * (MAX_ITEMS + 1), tuple[tuple[str], ...]),
        ({str(number): "a" for number in range(MAX_KEYS + 1)}, dict[str, str]),
    ],
    ids=["strings", "rows", "object"],
)
def test_a_list_or_an_object_is_bounded(value: Any, form: Any) -> None:
    """A full frame holds millions of items, and the master would look at each."""
    with pytest.raises(BadMessage):
        structure(value, form)
    fewer = value[:-1] if isinstance(value, list) else {key: value[key] for key in list(value)[:-1]}
    assert len(structure(fewer, form)) == len(value) - 1


def test_the_fields_of_a_frame_are_bounded() -> None:
    with pytest.raises(BadMessage, match="fields"):
        decode_worker_message(json.dumps({"type": "ready", **{str(n): 1 for n in range(MAX_KEYS + 1)}}).encode())
