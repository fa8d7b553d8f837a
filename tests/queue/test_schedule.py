"""When a try, a notice and the expiry are due."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from mailserver.queue import schedule
from mailserver.queue.model import Envelope, Settings, Target

SETTINGS = Settings()
ENVELOPE = Envelope("alice@example.org", 1_000_000)
TARGET = Target("bob@example.com", "example.com")


def test_the_waits_are_those_of_the_settings_and_the_last_one_stays() -> None:
    waits = [schedule.wait_after(SETTINGS, tries) for tries in range(1, 8)]
    assert waits == [300, 600, 1200, 2400, 3600, 3600, 3600]


def test_the_null_sender_has_its_own_expiry() -> None:
    assert schedule.expires_at(SETTINGS, ENVELOPE) == 1_000_000 + 5 * 86400
    assert schedule.expires_at(SETTINGS, evolve(ENVELOPE, sender="")) == 1_000_000 + 86400


def test_the_last_try_is_at_the_expiry() -> None:
    assert schedule.next_due(SETTINGS, now=1000, tries=5, expires=1010) == 1010
    assert schedule.next_due(SETTINGS, now=1010, tries=6, expires=1010) is None


@given(st.integers(1, 50), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_message_gets_a_finite_number_of_tries_each_later_than_the_one_before(
    tries: int, now: int, left: int
) -> None:
    due = schedule.next_due(SETTINGS, now, tries, now + left)
    assert due is not None
    assert now < due <= now + left


@pytest.mark.parametrize(
    ("sender", "notify", "backscatter", "wanted"),
    [
        pytest.param("alice@example.org", "", False, True, id="unasked"),
        pytest.param("alice@example.org", "DELAY", False, True, id="asked"),
        pytest.param("alice@example.org", "FAILURE", False, False, id="failures-alone"),
        pytest.param("alice@example.org", "NEVER", False, False, id="never"),
        pytest.param("", "DELAY", False, False, id="null-sender"),
        pytest.param("alice@example.org", "DELAY", True, False, id="backscatter"),
    ],
)
def test_a_notice_is_due_for_whoever_wants_one(sender: str, notify: str, backscatter: bool, wanted: bool) -> None:
    envelope = evolve(ENVELOPE, sender=sender)
    target = evolve(TARGET, notify=notify, backscatter=backscatter)
    assert schedule.notice_at(SETTINGS, envelope, target) == (1_000_000 + 4 * 3600 if wanted else None)
    assert schedule.notice_at(evolve(SETTINGS, delay_notice=0), envelope, target) is None
