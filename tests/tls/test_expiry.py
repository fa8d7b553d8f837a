"""Warnings of certificates that end: once for each threshold and name, and after a restart not twice a day."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mailserver.tls.serving.policy import Certificate
from mailserver.tls.state.expiry import Expiry, in_days, threshold
from mailserver.tls.state.history import History
from tests.tls.test_history import HOST, add, new_pair

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("left", "days"),
    [
        (dt.timedelta(days=31), None),
        (dt.timedelta(days=30, seconds=1), None),
        (dt.timedelta(days=30), 30),
        (dt.timedelta(days=14, seconds=1), 30),
        (dt.timedelta(days=14), 14),
        (dt.timedelta(days=7), 7),
        (dt.timedelta(days=1), 1),
        (dt.timedelta(seconds=1), 1),
        (dt.timedelta(0), 0),
        (-DAY, 0),
    ],
)
def test_threshold(left: dt.timedelta, days: int | None) -> None:
    assert threshold(NOW + left, NOW) == days


class World:
    """A certificate that ends in 31 days, and a process that may be started again."""

    def __init__(self, directory: Path) -> None:
        self.history = History.open(directory, 10)
        self.pair = new_pair()
        add(self.history, self.pair)
        self.served = [Certificate(HOST, "example.test", self.pair.fingerprint, NOW + 31 * DAY, "CN=x", "file", True)]
        self.restart()

    def restart(self) -> None:
        self.expiry = Expiry(self.history)

    def told(self, days: float) -> list[int]:
        return [each.threshold for each in self.expiry.due_warnings(self.served, NOW + days * DAY)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_threshold_is_told_once(world: World) -> None:
    told = [(hour // 24, each) for hour in range(33 * 24) for each in world.told(hour / 24)]
    assert told == [(1, 30), (17, 14), (24, 7), (30, 1), (31, 0)]


def test_a_restart_repeats_it_once_a_day_at_most(world: World) -> None:
    assert world.told(1.0) == [30]
    for days, told in ((1.1, []), (1.9, []), (2.1, [30]), (2.2, []), (3.5, [30])):
        world.restart()
        assert world.told(days) == told


def test_a_clock_that_jumps_back_silences_nothing(world: World) -> None:
    assert world.told(20) == [14]
    world.restart()
    assert world.told(18) == [14]


def test_a_renewal_begins_anew(world: World) -> None:
    assert world.told(1) == [30]
    other = new_pair()
    add(world.history, other)
    world.served = [Certificate(HOST, "example.test", other.fingerprint, NOW + 20 * DAY, "CN=x", "file", True)]
    assert world.told(1) == [30]


def test_what_cannot_be_recorded_is_told_all_the_same(world: World) -> None:
    world.history.close()
    assert world.told(1) == [30]
    assert world.told(1.5) == []


def test_the_words(world: World) -> None:
    (warning,) = world.expiry.due_warnings(world.served, NOW + 24.5 * DAY)
    assert str(warning) == f"{HOST}: the certificate ends in 6 days, on 2026-04-01 12:00 UTC (file)"
    (warning,) = world.expiry.due_warnings(world.served, NOW + 30.5 * DAY)
    assert "the certificate ends in less than a day, on 2026-04-01" in str(warning)
    assert (in_days(1), in_days(2)) == ("1 day", "2 days")
    (warning,) = world.expiry.due_warnings(world.served, NOW + 40 * DAY)
    assert "ended on 2026-04-01 12:00 UTC; clients refuse it" in str(warning)
