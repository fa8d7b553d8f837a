"""How many orders run at once, by a clock of the test's own."""

from __future__ import annotations

import math

from mailserver.tls.acme.acme_concurrency import AT_ONCE, MOST, SLOW, SLOW_AT_ONCE, URGENT, Group, OrderLimits

RECORDS, PAGES, AGAIN = ("dns-01", "new"), ("http-01", "new"), ("dns-01", "failed before")


def fill(limits: OrderLimits, group: Group, now: float = 0.0) -> int:
    """How many began."""
    number = 0
    while limits.may_start(group):
        limits.start(f"{number}.{group}.{now}", group, now)
        number += 1
    return number


def test_groups_do_not_delay_each_other_and_all_together_are_bounded() -> None:
    limits = OrderLimits()
    assert [fill(limits, group) for group in (RECORDS, AGAIN, PAGES, URGENT)] == [AT_ONCE] * 4
    assert 4 * AT_ONCE == MOST
    limits.move_slow(SLOW)
    assert not any(map(limits.may_start, (RECORDS, AGAIN, PAGES, URGENT, ("tls-alpn-01", "new"))))


def test_slow_orders_are_moved_up_to_the_limit_the_oldest_first() -> None:
    limits = OrderLimits()
    fill(limits, RECORDS)
    assert limits.until_slow(SLOW - 1) == 1
    limits.move_slow(SLOW - 1)
    assert not limits.may_start(RECORDS)
    limits.move_slow(SLOW)
    assert limits.until_slow(SLOW) == math.inf
    assert fill(limits, RECORDS, SLOW) == AT_ONCE
    limits.move_slow(2 * SLOW)
    assert fill(limits, RECORDS, 2 * SLOW) == SLOW_AT_ONCE - AT_ONCE
    limits.end(f"0.{RECORDS}.0.0")
    limits.move_slow(2 * SLOW)
    assert fill(limits, RECORDS, 2 * SLOW + 1) == 1


def test_what_has_failed_before_makes_no_way() -> None:
    limits = OrderLimits()
    fill(limits, AGAIN)
    limits.move_slow(10 * SLOW)
    assert not limits.may_start(AGAIN)
    assert limits.may_start(RECORDS)
