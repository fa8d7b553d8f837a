"""Reports, read by Python's email package and compared field by field with the examples of RFC 3461 and RFC 3464."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from mailserver.queue.dsn_rules import wants_failure, wants_success
from mailserver.queue.model import Envelope, Target
from mailserver.queue.outcome import Outcome, outcome_of_reply, outcome_of_silence
from mailserver.queue.report import (
    WHOLE_AT_MOST,
    WHOLE_UNASKED,
    Action,
    ReportedRecipient,
    Subject,
    compose,
    returns_whole,
)

CONTENT = b"From: Alice <Alice@Example.ORG>\r\nSubject: hello\r\n\r\nText.\r\n.\r\n"
ENVELOPE = Envelope("Alice@Example.ORG", 1_000_000, ret="HDRS", envid="QQ314159")
SUBJECT = Subject(ENVELOPE, "abc123", 1_432_000, CONTENT, whole=False)


def report(action: Action, *recipients: ReportedRecipient, subject: Subject = SUBJECT) -> EmailMessage:
    octets = compose(action, subject, recipients, hostname="Example.ORG", now=1_020_000, unique="bcdef")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert b"\r" not in octets.replace(b"\r\n", b"")
    assert b"\0" not in octets
    parsed: Any = email.message_from_bytes(octets, policy=email.policy.default)
    assert not parsed.defects
    assert parsed.get_content_type() == "multipart/report"
    assert parsed.get_param("report-type") == "delivery-status"
    assert len(parsed.get_payload()) == 3
    return parsed


def groups(parsed: EmailMessage) -> list[dict[str, str]]:
    """The groups of fields of the second part, unfolded."""
    part: Any = parsed.get_payload(1)
    return [{name: " ".join(str(value).split()) for name, value in group.items()} for group in part.get_payload()]


def text(parsed: EmailMessage) -> str:
    part: Any = parsed.get_payload(0)
    return " ".join(str(part.get_content()).split())


def returned(parsed: EmailMessage) -> tuple[str, str]:
    part: Any = parsed.get_payload(2)
    body = part.get_payload()
    return part.get_content_type(), str(body[0] if isinstance(body, list) else body)


def failed(address: str, reply: str = "error - no such recipient", **fields: Any) -> ReportedRecipient:
    target = Target(address, "ivory.edu", notify="FAILURE", orcpt=f"rfc822;{address}")
    return ReportedRecipient(
        evolve(target, **fields), outcome_of_reply("rcpt", 550, [reply], hop="Ivory.EDU[192.0.2.1]:25")
    )


def test_the_failure_of_rfc_3461_10_7() -> None:
    parsed = report("failed", failed("Carol@Ivory.EDU"))
    assert parsed["To"] == "Alice@Example.ORG"
    assert parsed["From"] == "Mail Delivery System <MAILER-DAEMON@Example.ORG>"
    assert parsed["Subject"] == "Undelivered Mail Returned to Sender"
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert groups(parsed) == [
        {
            "Original-Envelope-Id": "QQ314159",
            "Reporting-MTA": "dns; Example.ORG",
            "X-Queue-ID": "abc123",
            "X-Sender": "rfc822; Alice@Example.ORG",
            "Arrival-Date": "Mon, 12 Jan 1970 13:46:40 +0000",
        },
        {
            "Original-Recipient": "rfc822;Carol@Ivory.EDU",
            "Final-Recipient": "rfc822; Carol@Ivory.EDU",
            "Action": "failed",
            "Status": "5.0.0",
            "Remote-MTA": "dns; Ivory.EDU",
            "Diagnostic-Code": "smtp; 550 error - no such recipient",
        },
    ]
    kind, content = returned(parsed)
    assert kind == "text/rfc822-headers"
    assert "Subject: hello" in content
    assert "Text." not in content
    words = text(parsed)
    assert "This is the mail system at host Example.ORG. I'm sorry to have to inform you" in words
    assert words.endswith(
        "<Carol@Ivory.EDU>: host Ivory.EDU[192.0.2.1]:25 said: 550 error - no such recipient (in reply to RCPT TO command)"
    )


def test_the_relayed_report_of_rfc_3461_10_8() -> None:
    target = Target("Dana@Ivory.EDU", "ivory.edu", notify="SUCCESS,FAILURE", orcpt="rfc822;Dana@Ivory.EDU")
    outcome = outcome_of_reply("message", 250, ["message received"], hop="Ivory.EDU[192.0.2.1]:25")
    parsed = report("relayed", ReportedRecipient(target, outcome))
    assert parsed["Subject"] == "Successful Mail Delivery Report"
    assert groups(parsed)[1] == {
        "Original-Recipient": "rfc822;Dana@Ivory.EDU",
        "Final-Recipient": "rfc822; Dana@Ivory.EDU",
        "Action": "relayed",
        "Status": "2.0.0",
        "Remote-MTA": "dns; Ivory.EDU",
        "Diagnostic-Code": "smtp; 250 message received",
    }
    assert "<Dana@Ivory.EDU>: delivery via Ivory.EDU[192.0.2.1]:25: 250 message received" in text(parsed)


def test_several_recipients_as_in_rfc_3464() -> None:
    parsed = report("failed", failed("arathib@vnet.ibm.com"), failed("johnh@hpnjld.njd.hp.com"))
    assert [group["Final-Recipient"] for group in groups(parsed)[1:]] == [
        "rfc822; arathib@vnet.ibm.com",
        "rfc822; johnh@hpnjld.njd.hp.com",
    ]


def test_a_delay_says_until_when_it_is_retried() -> None:
    target = Target("louisl@larry.slip.umd.edu", "umd.edu")
    outcome = outcome_of_silence("connect", "connect to larry.slip.umd.edu: timed out")
    parsed = report("delayed", ReportedRecipient(target, outcome, last_try=1_019_000))
    assert parsed["Subject"] == "Delayed Mail (still being retried)"
    assert groups(parsed)[1] == {
        "Final-Recipient": "rfc822; louisl@larry.slip.umd.edu",
        "Action": "delayed",
        "Status": "4.4.1",
        "Diagnostic-Code": "X-mailserver; connect to larry.slip.umd.edu: timed out",
        "Last-Attempt-Date": "Mon, 12 Jan 1970 19:03:20 +0000",
        "Will-Retry-Until": "Sat, 17 Jan 1970 13:46:40 +0000",
    }
    assert "for more than 5 hour(s)" in text(parsed)
    assert "YOU DO NOT NEED TO RESEND" in text(parsed)


def test_the_whole_message_comes_back_as_such() -> None:
    subject = evolve(SUBJECT, envelope=evolve(ENVELOPE, ret="FULL"), whole=True)
    kind, content = returned(report("failed", failed("x@example.com"), subject=subject))
    assert kind == "message/rfc822"
    assert "Text." in content


@pytest.mark.parametrize(
    ("action", "ret", "size", "whole"),
    [
        pytest.param("failed", "", WHOLE_UNASKED, True, id="small"),
        pytest.param("failed", "", WHOLE_UNASKED + 1, False, id="large"),
        pytest.param("failed", "FULL", WHOLE_AT_MOST, True, id="full"),
        pytest.param("failed", "FULL", WHOLE_AT_MOST + 1, False, id="full-huge"),
        pytest.param("failed", "HDRS", 10, False, id="headers"),
        pytest.param("delayed", "FULL", 10, False, id="delay"),
        pytest.param("relayed", "FULL", 10, False, id="success"),
    ],
)
def test_what_a_report_returns(action: Action, ret: str, size: int, whole: bool) -> None:
    assert returns_whole(action, evolve(ENVELOPE, ret=ret), size) == whole


def test_addresses_beyond_ascii_in_a_report_that_needs_smtputf8() -> None:
    envelope = Envelope("\u00e5sa@example.org", 1_000_000, utf8=True)
    content = "From: \u00c5sa <\u00e5sa@example.org>\r\n\r\nHej\r\n".encode()
    recipient = failed("b\u00f6b@example.com", orcpt=r"utf-8;b\x{F6}b@example.com")
    octets = compose(
        "failed", Subject(envelope, "n", 2_000_000, content, whole=True), [recipient], hostname="h", now=1, unique="u"
    )
    lines = octets.decode().split("\r\n")
    assert "Content-Type: message/global-delivery-status" in lines
    assert "Content-Type: message/global" in lines
    assert "Final-Recipient: utf-8; b\u00f6b@example.com" in lines
    assert "Original-Recipient: utf-8;b\u00f6b@example.com" in lines
    assert "To: <\u00e5sa@example.org>" in lines
    assert lines.count("Content-Transfer-Encoding: 8bit") == 4


def test_addresses_beyond_ascii_in_a_report_that_does_not() -> None:
    parsed = report("failed", failed("b\u00f6b@example.com", orcpt=""))
    assert groups(parsed)[1]["Final-Recipient"] == r"utf-8; b\x{F6}b@example.com"
    assert "<b?b@example.com>" in text(parsed)


def test_an_8_bit_message_is_declared_as_such() -> None:
    subject = evolve(SUBJECT, content=b"A: b\r\n\r\n\xe4\0\rx\n", whole=True)
    parsed = report("failed", failed("x@example.com"), subject=subject)
    assert parsed["Content-Transfer-Encoding"] == "8bit"
    assert parsed.get_payload(2)["Content-Transfer-Encoding"] == "8bit"  # type: ignore[index]


@given(
    st.text(min_size=1, max_size=1200),
    st.text(max_size=1200),
    st.binary(max_size=300),
    st.booleans(),
    st.sampled_from(["failed", "delayed", "relayed", "delivered"]),
)
def test_hostile_addresses_replies_and_messages_stay_in_their_places(
    address: str, reply: str, content: bytes, utf8: bool, action: Action
) -> None:
    address = address.encode("utf-8", "ignore").decode()
    recipient = ReportedRecipient(
        Target(address or "x", "d", orcpt="rfc822;a+0D+0AX-Evil:+20yes"),
        outcome_of_reply("rcpt", 550, [reply], hop=reply),
    )
    subject = Subject(evolve(ENVELOPE, utf8=utf8), "n", 2_000_000, b"A: b\r\n\r\n" + content, whole=action == "failed")
    octets = compose(action, subject, [recipient], hostname="h.example", now=1_020_000, unique="u" * 32)
    outer = octets.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert len([line for line in outer if not line.startswith(b" ")]) <= 9
    status = octets.split(b"--" + b"u" * 32)[2].partition(b"\r\n\r\n")[2]
    names = {line.partition(b":")[0] for line in status.split(b"\r\n") if line and not line.startswith(b" ")}
    assert b"X-Evil" not in names
    assert {b"Final-Recipient", b"Action", b"Status"} <= names
    assert len(names) <= 13


def test_a_long_address_does_not_make_a_line_too_long() -> None:
    parsed = report("failed", failed("a" * 990 + "@example.com", orcpt="", reply="x" * 5000))
    assert groups(parsed)[1]["Final-Recipient"].startswith("rfc822; aaaa")


@pytest.mark.parametrize(
    ("sender", "notify", "backscatter", "failure", "success"),
    [
        pytest.param("a@example.org", "", False, True, False, id="unasked"),
        pytest.param("a@example.org", "NEVER", False, False, False, id="never"),
        pytest.param("a@example.org", "SUCCESS", False, False, True, id="success-alone"),
        pytest.param("a@example.org", "SUCCESS,FAILURE", False, True, True, id="both"),
        pytest.param("", "SUCCESS,FAILURE", False, False, False, id="null-sender"),
        pytest.param("a@example.org", "SUCCESS,FAILURE", True, False, False, id="backscatter"),
    ],
)
def test_who_gets_a_report(sender: str, notify: str, backscatter: bool, failure: bool, success: bool) -> None:
    envelope, target = Envelope(sender, 0), Target("b@example.com", "d", notify=notify, backscatter=backscatter)
    assert (wants_failure(envelope, target), wants_success(envelope, target)) == (failure, success)


def test_a_reason_of_our_own_names_no_host() -> None:
    recipient = ReportedRecipient(Target("b@example.com", "d"), Outcome("failed", "5.1.2", "domain does not exist"))
    parsed = report("failed", recipient)
    assert "<b@example.com>: domain does not exist" in text(parsed)
    assert "Remote-MTA" not in groups(parsed)[1]
