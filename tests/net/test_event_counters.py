"""Counts of events: they never go back."""

from __future__ import annotations

from mailserver.net.ipc.event_counters import EventCounters, EventTotals
from mailserver.net.ipc.worker_messages import MAX_EVENT_ROWS
from tests.fakes import info


def test_events_by_protocol_and_tls_version() -> None:
    event_counters = EventCounters()
    for protocol in ("imaps", "imaps", "lmtp"):
        event_counters.count("delivery", info(protocol))
    assert event_counters.rows() == [("delivery", "imaps", "TLSv1.3", 2), ("delivery", "lmtp", "none", 1)]


def test_what_an_ended_worker_has_counted_stays() -> None:
    totals = EventTotals()
    totals.update(0, [("login", "imaps", "none", 3)])
    totals.update(1, [("login", "imaps", "none", 1)])
    totals.update(0, [("login", "imaps", "none", 5)])
    assert totals.rows() == [("login", "imaps", "none", 6)]
    totals.end(0)
    totals.end(7)
    assert totals.rows() == [("login", "imaps", "none", 6)]
    totals.update(0, [("login", "imaps", "none", 1)])
    assert totals.rows() == [("login", "imaps", "none", 7)]


def test_workers_that_die_again_and_again_with_other_words_cost_no_more() -> None:
    totals = EventTotals()
    totals.update(0, [("login", "imaps", "none", 3)])
    totals.end(0)
    for life in range(5):
        totals.update(
            0, [("login", "imaps", "none", 1), *((f"{life}.{row}", "", "", 1) for row in range(MAX_EVENT_ROWS - 1))]
        )
        totals.end(0)
    rows = totals.rows()
    assert len(rows) == MAX_EVENT_ROWS
    assert ("login", "imaps", "none", 8) in rows
