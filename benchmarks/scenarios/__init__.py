"""The scenarios, by family."""

from __future__ import annotations

from benchmarks.scenarios import changes, deliveries, fetches, orders, resync, searches, sessions

SCENARIOS = (
    *sessions.SCENARIOS,
    *fetches.SCENARIOS,
    *resync.SCENARIOS,
    *searches.SCENARIOS,
    *orders.SCENARIOS,
    *changes.SCENARIOS,
    *deliveries.SCENARIOS,
)
