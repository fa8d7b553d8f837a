"""The outcome of a reply, also of one that lies, and of none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.queue.outcome import (
    COMMANDS,
    loops_back,
    no_such_domain,
    null_mx,
    outcome_of_reply,
    outcome_of_silence,
    refused_here,
)

STAGES = sorted(COMMANDS)


@pytest.mark.parametrize(
    ("stage", "code", "line", "result", "status"),
    [
        pytest.param("message", 250, "2.0.0 taken", "relayed", "2.0.0", id="taken"),
        pytest.param("message", 250, "ok", "relayed", "2.0.0", id="taken-without-status"),
        pytest.param("rcpt", 550, "5.1.1 no such user", "failed", "5.1.1", id="unknown"),
        pytest.param("rcpt", 450, "4.2.0 greylisted", "deferred", "4.2.0", id="greylisted"),
        pytest.param("mail", 552, "5.3.4 too large", "failed", "5.3.4", id="too-large"),
        pytest.param("data", 554, "no valid recipients", "failed", "5.0.0", id="data-refused"),
        pytest.param("message", 554, "5.7.1 spam", "failed", "5.7.1", id="spam"),
        pytest.param("message", 451, "later", "deferred", "4.0.0", id="later"),
        pytest.param("rcpt", 452, "4.2.2 full", "deferred", "4.2.2", id="452-alone"),
        pytest.param("rcpt", 552, "5.2.2 full", "failed", "5.2.2", id="552-alone"),
        pytest.param("rcpt", 421, "4.7.0 slow down", "deferred", "4.7.0", id="closing"),
        pytest.param("message", 421, "4.3.2 stopping", "deferred", "4.3.2", id="closing-behind-the-message"),
        pytest.param("greeting", 554, "5.7.1 go away", "hop_failed", "4.7.1", id="greeting-refused"),
        pytest.param("ehlo", 550, "no", "hop_failed", "4.0.0", id="ehlo-refused"),
        pytest.param("starttls", 454, "4.7.0 no TLS", "hop_failed", "4.7.0", id="starttls-refused"),
        pytest.param("auth", 535, "5.7.8 wrong", "hop_failed", "4.7.8", id="auth-refused"),
    ],
)
def test_a_reply(stage: str, code: int, line: str, result: str, status: str) -> None:
    outcome = outcome_of_reply(stage, code, [line])  # type: ignore[arg-type]
    assert (outcome.result, outcome.status) == (result, status)
    assert outcome.diagnostic == f"{code} {line}"
    assert not outcome.may_have_arrived


def test_a_hop_with_dsn_takes_the_notification_over() -> None:
    assert outcome_of_reply("message", 250, ["ok"], dsn_offered=True).result == "passed_on"


@pytest.mark.parametrize("code", [452, 552])
def test_too_many_recipients_are_tried_again_at_once(code: int) -> None:
    assert outcome_of_reply("rcpt", code, ["too many"], others_accepted=True).result == "again"
    assert outcome_of_reply("mail", code, ["no"], others_accepted=True).result != "again"


@pytest.mark.parametrize(
    ("stage", "code", "line", "result", "status"),
    [
        pytest.param("rcpt", 550, "2.1.5 fine", "failed", "5.0.0", id="status-of-another-class"),
        pytest.param("rcpt", 550, "5.1.1111 x", "failed", "5.0.0", id="status-too-long"),
        pytest.param("rcpt", 354, "send it", "deferred", "4.5.0", id="354-to-rcpt"),
        pytest.param("data", 250, "ok", "deferred", "4.5.0", id="250-to-data"),
        pytest.param("message", 354, "more", "deferred", "4.5.0", id="354-to-the-message"),
        pytest.param("message", 700, "x", "deferred", "4.5.0", id="no-smtp-code"),
        pytest.param("greeting", 354, "x", "hop_failed", "4.5.0", id="354-as-greeting"),
    ],
)
def test_a_reply_that_lies(stage: str, code: int, line: str, result: str, status: str) -> None:
    outcome = outcome_of_reply(stage, code, [line])  # type: ignore[arg-type]
    assert (outcome.result, outcome.status) == (result, status)
    assert outcome.may_have_arrived == (stage == "message")


@given(
    st.sampled_from(STAGES),
    st.integers(0, 999),
    st.lists(st.one_of(st.binary(max_size=600), st.text(max_size=600)), max_size=12),
    st.booleans(),
)
def test_any_reply_gives_one_printable_line_and_a_status_of_its_class(
    stage: str, code: int, lines: list[bytes | str], others: bool
) -> None:
    outcome = outcome_of_reply(stage, code, lines, others_accepted=others)  # type: ignore[arg-type]
    assert all(" " <= each <= "~" for each in outcome.diagnostic)
    assert len(outcome.diagnostic) < 5000
    permanent = outcome.result == "failed"
    sent = outcome.result in {"relayed", "passed_on"}
    assert outcome.status[0] == ("5" if permanent else "2" if sent else "4")
    assert not sent or stage == "message"
    assert not permanent or 500 <= code <= 599


def test_octets_that_could_harm_a_terminal_are_question_marks() -> None:
    outcome = outcome_of_reply("rcpt", 550, [b"5.1.1 no\0 user \x1b[2J \xff\xc3\xa9", "zwei\r\nSubject: x"])
    assert outcome.text == "5.1.1 no? user ?[2J ??? zwei  Subject: x"


@pytest.mark.parametrize(
    ("stage", "result", "status", "arrived"),
    [
        pytest.param("connect", "hop_failed", "4.4.1", False, id="no-connection"),
        pytest.param("rcpt", "deferred", "4.4.2", False, id="cut-before-the-dot"),
        pytest.param("message", "deferred", "4.4.2", True, id="cut-behind-the-dot"),
    ],
)
def test_silence(stage: str, result: str, status: str, arrived: bool) -> None:
    outcome = outcome_of_silence(stage, "timed\nout")  # type: ignore[arg-type]
    assert (outcome.result, outcome.status, outcome.may_have_arrived) == (result, status, arrived)
    assert outcome.diagnostic == "timed out"


def test_failures_without_a_hop() -> None:
    assert [each.status for each in (no_such_domain("x"), null_mx("x"), loops_back("x"))] == [
        "5.1.2",
        "5.1.10",
        "5.4.6",
    ]
    assert refused_here("5.2.2", "full").result == "failed"
    assert refused_here("4.2.2", "full").result == "deferred"
