"""How many orders run at once, by a clock of the test's own."""

from __future__ import annotations

import math

from mailserver.tls.acme.acme_concurrency import AT_ONCE, HURRIED, MOST, SLOW, SLOW_AT_ONCE, Lane, Lanes

RECORDS, PAGES, AGAIN = ("dns-01", "new"), ("http-01", "new"), ("dns-01", "failed before")


def fill(lanes: Lanes, lane: Lane, now: float = 0.0) -> int:
    """How many began."""
    number = 0
    while lanes.has_place(lane):
        lanes.enter(f"{number}.{lane}.{now}", lane, now)
        number += 1
    return number


def test_lanes_hold_up_no_other_and_all_together_are_bounded() -> None:
    lanes = Lanes()
    assert [fill(lanes, lane) for lane in (RECORDS, AGAIN, PAGES, HURRIED)] == [AT_ONCE] * 4
    assert 4 * AT_ONCE == MOST
    lanes.make_way(SLOW)
    assert not any(map(lanes.has_place, (RECORDS, AGAIN, PAGES, HURRIED, ("tls-alpn-01", "new"))))


def test_those_that_take_long_make_way_as_far_as_there_is_room_the_oldest_first() -> None:
    lanes = Lanes()
    fill(lanes, RECORDS)
    assert lanes.until_way(SLOW - 1) == 1
    lanes.make_way(SLOW - 1)
    assert not lanes.has_place(RECORDS)
    lanes.make_way(SLOW)
    assert lanes.until_way(SLOW) == math.inf
    assert fill(lanes, RECORDS, SLOW) == AT_ONCE
    lanes.make_way(2 * SLOW)
    assert fill(lanes, RECORDS, 2 * SLOW) == SLOW_AT_ONCE - AT_ONCE
    lanes.leave(f"0.{RECORDS}.0.0")
    lanes.make_way(2 * SLOW)
    assert fill(lanes, RECORDS, 2 * SLOW + 1) == 1


def test_what_has_failed_before_makes_no_way() -> None:
    lanes = Lanes()
    fill(lanes, AGAIN)
    lanes.make_way(10 * SLOW)
    assert not lanes.has_place(AGAIN)
    assert lanes.has_place(RECORDS)
