"""What failures cost."""

from ipaddress import ip_address

import pytest

from mailserver.auth.throttling import penalties
from mailserver.auth.throttling.penalties import FORGET_AFTER, Penalties, network_of
from mailserver.types import Secret

PAIR = ("anna@example.test", "192.0.2.0/24")


class Bench:
    def __init__(self, first: float = 1.0, most: float = 15.0) -> None:
        self.now = 0.0
        self.table = Penalties(lambda: self.now, first, most)
        self.guesses = 0

    def guess(self, pair: tuple[str, str] = PAIR, password: bytes | None = None) -> float:
        self.guesses += 1
        return self.table.failed(pair, Secret(password or str(self.guesses).encode()))


def test_the_delay_doubles_up_to_its_bound() -> None:
    bench = Bench()
    assert [bench.guess() for _ in range(6)] == [1, 2, 4, 8, 15, 15]


def test_a_repeated_password_counts_once() -> None:
    bench = Bench()
    assert [bench.guess(password=b"stale") for _ in range(4)] == [1, 1, 1, 1]
    assert bench.guess(password=b"other") == 2
    assert bench.guess(password=b"stale") == 2
    assert bench.guess(password=b"third") == 4


def test_other_users_and_networks_are_not_slowed() -> None:
    bench = Bench()
    for _ in range(5):
        bench.guess()
    assert bench.guess(("ben@example.test", PAIR[1])) == 1
    assert bench.guess((PAIR[0], "198.51.100.0/24")) == 1


def test_success_and_time_forgive() -> None:
    bench = Bench()
    bench.guess()
    bench.guess()
    bench.table.succeeded(PAIR)
    assert bench.guess() == 1
    bench.guess()
    bench.now += FORGET_AFTER + 1
    assert bench.guess() == 1
    bench.now += FORGET_AFTER - 1
    assert bench.guess() == 2, "each failure counts the ten minutes anew"


def test_the_table_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "MAX_PAIRS", 3)
    bench = Bench()
    pairs = [(str(number), "local") for number in range(3)]
    for pair in pairs:
        bench.guess(pair)
    bench.guess(pairs[0])
    bench.guess(("new", "local"))
    assert len(bench.table) == 3
    assert bench.guess(pairs[0]) == 4
    assert bench.guess(pairs[1]) == 1


def test_no_password_is_kept() -> None:
    bench = Bench()
    bench.guess(password=b"hunter2hunter2")
    record = bench.table._records[PAIR]
    assert b"hunter2" not in b"".join(record.wrong)
    for _ in range(100):
        bench.guess()
    assert len(record.wrong) <= 17


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8:1:2::1", "2001:db8:1:ffff::1", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.7", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_networks(one: str, other: str, same: bool) -> None:
    assert (network_of(ip_address(one)) == network_of(ip_address(other))) is same


def test_a_unix_socket_is_a_network_of_its_own() -> None:
    assert network_of(None) == "local"


def test_who_does_not_wait_for_the_answer_waits_for_the_turn() -> None:
    bench = Bench()
    assert bench.table.take_turn(PAIR) == 0
    bench.guess()
    assert bench.table.take_turn(PAIR) == 1
    bench.now += 1
    bench.guess()
    assert bench.table.take_turn(PAIR) == 2


def test_attempts_at_once_get_turns_one_after_another() -> None:
    bench = Bench()
    bench.guess()
    assert [bench.table.take_turn(PAIR) for _ in range(4)] == [1, 2, 3, 4]
    assert bench.table.take_turn(("ben@example.test", PAIR[1])) == 0


def test_who_waited_for_the_answer_waits_no_more() -> None:
    bench = Bench()
    for _ in range(6):
        assert bench.table.take_turn(PAIR) == 0
        bench.now += bench.guess()


def test_the_queue_of_turns_is_bounded() -> None:
    bench = Bench()
    bench.guess()
    turns = [bench.table.take_turn(PAIR) for _ in range(1000)]
    assert max(turns) <= penalties.MAX_WAIT + bench.table.max_delay
    bench.now += penalties.MAX_WAIT + bench.table.max_delay
    assert bench.table.take_turn(PAIR) == 0
