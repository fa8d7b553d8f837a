"""The scenarios, by family."""

from __future__ import annotations

from benchmarks.scenarios import changes, deliveries, fetches, searches, sessions

SCENARIOS = (
    *sessions.SCENARIOS,
    *fetches.SCENARIOS,
    *searches.SCENARIOS,
    *changes.SCENARIOS,
    *deliveries.SCENARIOS,
)
