"""Networks that users have logged in from: what is kept, for how long, and what is not."""

from __future__ import annotations

import random

import pytest

from mailserver.auth.throttling import known_networks
from mailserver.auth.throttling.known_networks import (
    KEEP_DAYS,
    MAX_KNOWN,
    DamagedTable,
    KnownNetworks,
    Row,
    validate_rows,
)

ANNA = "anna@example.test"
HOME = (ANNA, "192.0.2.0/24")
DAY = 86400.0


class Wall:
    def __init__(self) -> None:
        self.now = 20_000 * DAY

    def __call__(self) -> float:
        return self.now


def network(number: int) -> str:
    return f"10.{number >> 8}.{number & 255}.0/24"


def test_a_login_makes_its_network_known_for_that_user_alone() -> None:
    table = KnownNetworks()
    assert not table.is_known(HOME)
    table.add(HOME)
    assert table.is_known(HOME)
    assert not table.is_known((ANNA, "198.51.100.0/24"))
    assert not table.is_known(("ben@example.test", HOME[1]))
    assert not table.is_known((ANNA + "\0" + HOME[1], ""))


def test_it_is_known_for_ninety_days_after_the_last_login() -> None:
    wall = Wall()
    table = KnownNetworks(wall=wall)
    table.add(HOME)
    wall.now += 60 * DAY
    table.add(HOME)
    wall.now += KEEP_DAYS * DAY
    assert table.is_known(HOME)
    wall.now += DAY
    assert not table.is_known(HOME)


def test_news_are_the_first_login_of_a_day() -> None:
    wall = Wall()
    table = KnownNetworks(wall=wall)
    told: list[Row] = []
    table.on_change = told.extend
    for _ in range(3):
        table.add(HOME)
    assert len(told) == 2, "the pair, and the network alone"
    wall.now += DAY
    table.add(HOME)
    assert [day for _digest, day in told] == [20_000, 20_000, 20_001, 20_001]


def test_the_file_brings_all_back_and_names_nobody() -> None:
    wall = Wall()
    table = KnownNetworks(wall=wall)
    pairs = [(f"user{number % 40}@example.test", network(number)) for number in range(500)]
    for pair in random.sample(pairs, len(pairs)):
        table.add(pair)
    data = table.to_bytes()
    assert b"user" not in data
    assert b"10." not in data
    again = KnownNetworks(wall=wall)
    again.load(data)
    assert len(again) == 1000, "pairs, and networks alone"
    assert all(map(again.is_known, pairs))
    assert not any(again.is_known((name, "192.0.2.0/24")) for name, _network in pairs)
    wall.now += (KEEP_DAYS + 1) * DAY
    again.load(data)
    assert len(again) == 0, "what is too old does not come back"


def test_another_key_knows_nothing() -> None:
    one, other = KnownNetworks(b"1" * 32), KnownNetworks(b"2" * 32)
    one.add(HOME)
    other.merge([(digest, 20_000) for digest in one._digests])
    assert len(other) == 2
    assert not other.is_known(HOME)


@pytest.mark.parametrize("damage", ["empty", "short", "long", "flipped", "other"])
def test_a_damaged_file_is_told_and_changes_nothing(damage: str) -> None:
    table = KnownNetworks()
    table.add(HOME)
    data = table.to_bytes()
    broken = {
        "empty": b"",
        "short": data[:-1],
        "long": data + b"x",
        "flipped": data[:40] + bytes([data[40] ^ 1]) + data[41:],
        "other": b"x" * len(data),
    }[damage]
    with pytest.raises(DamagedTable):
        table.load(broken)
    assert table.is_known(HOME)


def test_a_user_has_a_bounded_number_of_networks_and_takes_none_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_networks, "MAX_NETWORKS", 5)
    wall = Wall()
    table = KnownNetworks(wall=wall)
    table.add(("ben@example.test", network(0)))
    for number in range(20):
        wall.now += DAY
        table.add((ANNA, network(number)))
    assert [number for number in range(20) if table.is_known((ANNA, network(number)))] == [15, 16, 17, 18, 19]
    assert table.is_known(("ben@example.test", network(0)))


def test_the_table_is_bounded_and_the_longest_unused_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_networks, "MAX_KNOWN", 400)
    wall = Wall()
    table = KnownNetworks(wall=wall)
    for number in range(300):
        if number % 7 == 0:
            wall.now += DAY
        table.add((f"user{number}", network(number)))
        assert len(table) <= 400
        assert list(table._digests) == sorted(table._digests)
    left = [number for number in range(300) if table.is_known((f"user{number}", network(number)))]
    assert 195 <= len(left) <= 205
    assert min(left) >= 300 - 200 - 7


def test_a_network_is_known_once_anybody_has_logged_in_and_for_as_long() -> None:
    wall = Wall()
    table = KnownNetworks(wall=wall)
    assert not table.is_network_known(network(1))
    table.add((ANNA, network(1)))
    assert table.is_network_known(network(1))
    assert not table.is_network_known(network(2))
    again = KnownNetworks(wall=wall)
    again.load(table.to_bytes())
    assert again.is_network_known(network(1))
    wall.now += KEEP_DAYS * DAY
    assert table.is_network_known(network(1))
    wall.now += DAY
    assert not table.is_network_known(network(1))


def test_a_user_at_its_limit_makes_no_further_network_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_networks, "MAX_NETWORKS", 5)
    table = KnownNetworks()
    for number in range(20):
        table.add((ANNA, network(number)))
    assert [number for number in range(20) if table.is_network_known(network(number))] == [0, 1, 2, 3, 4]
    table.add(("ben@example.test", network(19)))
    assert table.is_network_known(network(19))


def test_the_networks_of_anybody_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_networks, "MAX_OF_ANYBODY", 5)
    wall = Wall()
    table = KnownNetworks(wall=wall)
    for number in range(20):
        wall.now += DAY
        table.add((f"user{number}", network(number)))
    assert [number for number in range(20) if table.is_network_known(network(number))] == [15, 16, 17, 18, 19]
    assert all(table.is_known((f"user{number}", network(number))) for number in range(20))


def test_a_full_table_has_less_than_a_mebibyte() -> None:
    table = KnownNetworks()
    table.merge((number << 32, 20_000) for number in range(MAX_KNOWN + 1))
    assert 0.9 * MAX_KNOWN < len(table) <= MAX_KNOWN
    table.merge(((number << 32) + 1, 20_000) for number in range(MAX_KNOWN - len(table)))
    assert len(table) == MAX_KNOWN
    assert len(table.to_bytes()) < 1 << 20


def test_workers_tell_rows_and_no_day_of_the_future() -> None:
    wall = Wall()
    one, other = KnownNetworks(b"k" * 32, wall), KnownNetworks(b"k" * 32, wall)
    told: list[Row] = []
    one.on_change = told.extend
    one.add(HOME)
    assert other.merge(validate_rows([list(row) for row in told], 10))
    assert other.is_known(HOME)
    assert not other.merge(told), "that was known"
    other.merge([(told[0][0], 60_000)])
    wall.now += (KEEP_DAYS + 1) * DAY
    assert not other.is_known(HOME)


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        "x",
        [1],
        [[1]],
        [[1, 2, 3]],
        [["1", 2]],
        [[1, -1]],
        [[-1, 1]],
        [[1 << 64, 1]],
        [[1, 1 << 16]],
        [[1, 1]] * 3,
    ],
)
def test_what_is_no_rows_is_refused(told: object) -> None:
    with pytest.raises(ValueError, match="known networks"):
        validate_rows(told, 2)
