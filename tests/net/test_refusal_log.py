"""A scanner fills neither the log nor memory, and nothing is lost of how often it came."""

from __future__ import annotations

import pytest

from mailserver.config.model import Limits
from mailserver.net.connection.connection_limits import ConnectionCounts
from mailserver.net.log.refusal_log import INTERVAL, MOST, MOST_REMEMBERED, RefusalLog, is_refusal
from tests.net.connections import World


def test_some_lines_a_minute_then_a_number() -> None:
    log = RefusalLog()
    assert [log.count("192.0.2.1", "tls-failed", 0.0) for _ in range(MOST)] == [0] * MOST
    assert [log.count("192.0.2.1", "tls-failed", second) for second in range(50)] == [None] * 50
    # Another network, and another event, have their own.
    assert log.count("192.0.2.2", "tls-failed", 1.0) == 0
    assert log.count("192.0.2.1", "timeout", 1.0) == 0
    assert log.count("192.0.2.1", "tls-failed", INTERVAL) == 50
    assert log.count("192.0.2.1", "tls-failed", INTERVAL) == 0


def test_it_remembers_no_more_than_so_many() -> None:
    log = RefusalLog()
    for number in range(3 * MOST_REMEMBERED):
        assert log.count(str(number), "tls-failed", 0.0) == 0
    assert len(log._lines) <= MOST_REMEMBERED


def test_what_counts_as_one() -> None:
    assert is_refusal("tls-failed", {})
    assert is_refusal("request", {"status": 404})
    assert not is_refusal("request", {"status": 200})
    for event in ("login-failed", "login", "delivery", "bug", "connection-cut"):
        assert not is_refusal(event, {})


async def one_of_each(connection) -> None:
    connection.log("request", path="/wp-login.php", status=404)
    connection.log("login-failed", reason="wrong password")
    connection.log("request", path="/", status=200)


def test_a_flood_of_refused_requests_has_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("mailserver.net.log.events.log.info", lambda _format, text, **_fields: lines.append(str(text)))
    counts = ConnectionCounts(Limits(unauthenticated_per_address=1000))
    for _ in range(MOST + 20):
        World(one_of_each, counts=counts).lose()
    assert sum(" status=404" in line for line in lines) == MOST
    assert sum(line.startswith("login-failed") for line in lines) == MOST + 20
    assert sum(" status=200" in line for line in lines) == MOST + 20
    assert counts.refusal_log.count("192.168.1.1", "request", INTERVAL) == 20
