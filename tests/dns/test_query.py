from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailserver.dns.query import (
    LARGEST_ANSWER,
    MOST_RECORDS,
    BadAnswer,
    BadName,
    DNSFailure,
    MailExchange,
    Question,
    Truncated,
    encode_question,
    read_answer,
)

MX = Question("example.test", "MX")
NUMBER = 4711


def response(question: Question, *lines: str, authority: str = "", number: int = NUMBER) -> dns.message.Message:
    """An answer as a server makes it: lines of "NAME TTL TYPE DATA"."""
    answer = dns.message.make_response(dns.message.from_wire(encode_question(question, number)))
    for line in lines:
        answer.answer.append(dns.rrset.from_text(*_split(line)))
    if authority:
        answer.authority.append(dns.rrset.from_text(*_split(authority)))
    return answer


def _split(line: str) -> tuple[str, str, str, str, str]:
    name, ttl, kind, data = line.split(" ", 3)
    return name, ttl, "IN", kind, data


def test_a_question() -> None:
    query = dns.message.from_wire(encode_question(Question("Mail.Example.test", "AAAA"), 513))
    assert query.id == 513
    assert query.question[0].to_text() == "Mail.Example.test. IN AAAA"
    assert query.flags & dns.flags.RD
    assert query.flags & dns.flags.AD
    assert (query.edns, query.payload) == (0, 1232)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "a.b.", "x" * 64 + ".test", ".".join(["x" * 60] * 5), "m\u00fcnchen.example", "a." * 130 + "a"],
    ids=["empty", "root", "empty-label", "last-dot", "long-label", "long", "not-ascii", "many-labels"],
)
def test_no_names(name: str) -> None:
    with pytest.raises(BadName):
        encode_question(Question(name, "A"), 1)


def test_a_backslash_is_no_escape() -> None:
    query = dns.message.from_wire(encode_question(Question("a\\.b", "A"), 1))
    assert query.question[0].name.labels == (b"a\\", b"b", b"")


def test_records_of_each_kind() -> None:
    answer = read_answer(
        MX,
        NUMBER,
        response(MX, "example.test. 300 MX 10 Mail.example.test.").to_wire(),
    )
    assert answer.records == (MailExchange(10, "mail.example.test"),)
    assert answer.ttl == 300
    assert answer.exists
    for kind, data, record in (
        ("A", "192.0.2.1", ip_address("192.0.2.1")),
        ("AAAA", "2001:db8::1", ip_address("2001:db8::1")),
        ("TXT", '"v=DKIM1; " "p="', b"v=DKIM1; p="),
        ("MX", "0 .", MailExchange(0, "")),
    ):
        question = Question("example.test", kind)  # type: ignore[arg-type]
        got = read_answer(question, NUMBER, response(question, f"example.test. 60 {kind} {data}").to_wire())
        assert got.records == (record,), kind


def test_an_mx_with_odd_octets_is_kept_escaped() -> None:
    answer = read_answer(MX, NUMBER, response(MX, "example.test. 60 MX 1 a\\.b\\010.test.").to_wire())
    assert answer.records == (MailExchange(1, "a\\.b\\010.test"),)


def test_case_does_not_count() -> None:
    message = response(Question("EXAMPLE.test", "MX"), "eXample.TEST. 60 MX 1 a.test.")
    assert read_answer(MX, NUMBER, message.to_wire()).records == (MailExchange(1, "a.test"),)


def test_aliases_are_followed_with_the_shortest_ttl() -> None:
    question = Question("a.test", "A")
    lines = ("a.test. 40 CNAME b.test.", "b.test. 90 CNAME c.test.", "c.test. 50 A 192.0.2.9", "d.test. 9 A 192.0.2.1")
    answer = read_answer(question, NUMBER, response(question, *lines).to_wire())
    assert answer.records == (ip_address("192.0.2.9"),)
    assert answer.ttl == 40


@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_loop_of_aliases(length: int) -> None:
    question = Question("n0.test", "A")
    lines = [f"n{at}.test. 60 CNAME n{(at + 1) % length}.test." for at in range(length)]
    with pytest.raises(DNSFailure, match="loop"):
        read_answer(question, NUMBER, response(question, *lines).to_wire())


SOA = "test. 900 SOA ns.test. root.test. 1 2 3 4 120"


def test_absence_and_its_time() -> None:
    message = response(MX, authority=SOA)
    answer = read_answer(MX, NUMBER, message.to_wire())
    assert (answer.records, answer.exists, answer.ttl) == ((), True, 120)
    message.set_rcode(dns.rcode.NXDOMAIN)
    answer = read_answer(MX, NUMBER, message.to_wire())
    assert (answer.records, answer.exists, answer.ttl) == ((), False, 120)
    assert read_answer(MX, NUMBER, response(MX).to_wire()).ttl == 0
    long = response(MX, authority="test. 999999 SOA ns.test. root.test. 1 2 3 4 999999")
    assert read_answer(MX, NUMBER, long.to_wire()).ttl == 3 * 3600


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"])
def test_failures(code: str) -> None:
    message = response(MX)
    message.set_rcode(dns.rcode.from_text(code))
    with pytest.raises(DNSFailure, match=code) as failure:
        read_answer(MX, NUMBER, message.to_wire())
    assert not isinstance(failure.value, BadAnswer)
    assert failure.value.smtp_reply == (451, "4.4.3")


def test_what_is_no_answer_to_the_question() -> None:
    good = response(MX, "example.test. 60 MX 1 a.test.")
    others = {
        "another id": response(MX, "example.test. 60 MX 1 a.test.", number=NUMBER + 1),
        "another name": response(Question("example.org", "MX"), "example.test. 60 MX 1 a.test."),
        "another type": response(Question("example.test", "A"), "example.test. 60 MX 1 a.test."),
    }
    for message in others.values():
        with pytest.raises(BadAnswer):
            read_answer(MX, NUMBER, message.to_wire())
    question = dns.message.from_wire(good.to_wire())
    question.flags &= ~dns.flags.QR
    with pytest.raises(BadAnswer):
        read_answer(MX, NUMBER, question.to_wire())
    none = dns.message.from_wire(good.to_wire())
    none.question = []
    with pytest.raises(BadAnswer):
        read_answer(MX, NUMBER, none.to_wire())


def test_records_of_others_do_not_count() -> None:
    message = response(MX, "example.org. 60 MX 1 evil.test.", "example.test. 60 A 192.0.2.1")
    message.additional.append(dns.rrset.from_text("example.test.", 60, "IN", "MX", "1 evil.test."))
    assert read_answer(MX, NUMBER, message.to_wire()).records == ()


def test_truncation() -> None:
    message = response(MX)
    message.flags |= dns.flags.TC
    with pytest.raises(Truncated):
        read_answer(MX, NUMBER, message.to_wire())
    with pytest.raises(BadAnswer):
        read_answer(MX, NUMBER, message.to_wire(), datagram=False)


def test_the_resolver_says_that_it_has_validated() -> None:
    message = response(MX, "example.test. 60 MX 1 a.test.")
    assert not read_answer(MX, NUMBER, message.to_wire()).authentic
    message.flags |= dns.flags.AD
    assert read_answer(MX, NUMBER, message.to_wire()).authentic


def test_large_answers_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    head = bytearray(response(MX).to_wire())
    head[6:8] = (MOST_RECORDS + 1).to_bytes(2, "big")
    monkeypatch.setattr(dns.message, "from_wire", pytest.fail)
    for data in (bytes(head), bytes(LARGEST_ANSWER + 1), b"", bytes(11)):
        with pytest.raises(BadAnswer):
            read_answer(MX, NUMBER, data)


VALID = response(
    MX, "example.test. 60 MX 1 a.test.", 'example.test. 60 TXT "x"', "a.test. 60 A 192.0.2.1", authority=SOA
).to_wire()


@given(at=st.integers(0, len(VALID) - 1), octet=st.integers(0, 255), end=st.integers(0, len(VALID)))
@example(at=2, octet=0xFF, end=len(VALID))
def test_any_octets_are_an_answer_or_refused(at: int, octet: int, end: int) -> None:
    damaged = bytearray(VALID)
    damaged[at] = octet
    try:
        answer = read_answer(MX, NUMBER, bytes(damaged[:end]))
    except (DNSFailure, Truncated):
        return
    assert answer.ttl >= 0
    assert all(isinstance(record, MailExchange) for record in answer.records)


@given(st.binary(max_size=200))
def test_random_octets_behind_a_right_head(data: bytes) -> None:
    try:
        read_answer(MX, NUMBER, VALID[:30] + data)
    except (DNSFailure, Truncated):
        return
