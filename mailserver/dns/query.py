"""One question to a resolver and the answer to it, as datagrams (RFC 1035, RFC 2308, RFC 6891).

An answer counts only if its id, its question and its kind of record are those that were asked for. What else a datagram
contains is not looked at: the additional section of a stranger is no answer to another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final, Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from attrs import frozen

from mailserver.errors import MailError

Kind = Literal["A", "AAAA", "MX", "TXT"]

PAYLOAD: Final = 1232
"""Octets of a datagram that we take (RFC 6891 6.2.5); a longer answer comes over TCP. 1232 never needs fragments."""
LARGEST_ANSWER: Final = 16 * 1024
"""Octets of an answer over TCP."""
MOST_RECORDS: Final = 512
"""Records of one answer, of all its sections."""
MOST_ALIASES: Final = 10
"""CNAME records that are followed within one answer."""
LONGEST_TTL: Final = 24 * 3600
LONGEST_DENIAL: Final = 3 * 3600
"""Seconds that the absence of a record is remembered at most (RFC 2308 5)."""


class DNSFailure(MailError):
    """No resolver answers, or its answer is none (RFC 3463 X.4.3): try again later."""

    smtp_reply: ClassVar[tuple[int, str]] = (451, "4.4.3")
    text = "the DNS does not answer"


class BadAnswer(DNSFailure):
    """What came is no answer to this question: it may be forged, and the wait for the right one goes on."""

    text = "the resolver's answer is not one to our question"


class Truncated(Exception):
    """The answer does not fit into a datagram: ask again over TCP (RFC 2181 9)."""


@frozen
class Question:
    """What is asked: a name, without the last dot, in ASCII; and the type of record."""

    name: str
    kind: Kind


@frozen
class MailExchange:
    """An MX record."""

    preference: int
    host: str
    """A name in lower case, without the last dot; empty for the null MX (RFC 7505). Any octets are possible, escaped."""


Record = IPv4Address | IPv6Address | MailExchange | bytes
"""The data of a record: an address, an MX, or the joined strings of a TXT."""


@frozen
class Answer:
    """What the DNS says about a question. Without records: the name or the type does not exist."""

    records: tuple[Record, ...]
    ttl: int
    """Seconds that it may be remembered."""
    exists: bool = True
    """False: the name does not exist, for any type (NXDOMAIN)."""
    authentic: bool = False
    """The resolver says that it has validated the answer (RFC 6840 5.8); worth what the way to it is worth."""


def encode_question(question: Question, number: int) -> bytes:
    """Encode the datagram. `number` is its id, 0 to 65535. Raises: BadName."""
    query = dns.message.make_query(
        _name(question.name), question.kind, use_edns=0, payload=PAYLOAD, flags=dns.flags.RD | dns.flags.AD
    )
    query.id = number
    return query.to_wire()


class BadName(MailError):
    """A text that is no domain name: empty labels, labels over 63 or a name over 255 octets (RFC 1035 2.3.4)."""

    smtp_reply: ClassVar[tuple[int, str]] = (550, "5.1.2")
    text = "this is not a domain name"


def _name(text: str) -> dns.name.Name:
    # Labels are split here: dnspython would read a backslash as the start of an escape.
    try:
        labels = [label.encode("ascii") for label in text.split(".")]
        if not all(labels):
            raise BadName
        return dns.name.Name([*labels, b""])
    except (UnicodeEncodeError, dns.exception.DNSException) as error:
        raise BadName from error


def read_answer(question: Question, number: int, data: bytes, *, datagram: bool = True) -> Answer:
    """Read an answer. `datagram`: it came over UDP, where it may be truncated or forged.

    Raises: BadAnswer for what is no answer to this question, Truncated, DNSFailure if the resolver says that it has none.
    """
    message = _parse(data)
    asked = message.question
    if message.id != number or not message.flags & dns.flags.QR or message.opcode() != 0:
        raise BadAnswer
    name = _name(question.name)
    rdtype = dns.rdatatype.from_text(question.kind)
    # Names are compared without regard to case.
    if len(asked) != 1 or (asked[0].name, asked[0].rdtype, asked[0].rdclass) != (name, rdtype, dns.rdataclass.IN):
        raise BadAnswer
    if message.flags & dns.flags.TC:
        if datagram:
            raise Truncated
        raise BadAnswer
    code = message.rcode()
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise DNSFailure(f"the DNS does not answer ({dns.rcode.to_text(code)})")
    ttl, name = _follow(message.answer, name, rdtype)
    found = _find(message.answer, name, rdtype)
    authentic = bool(message.flags & dns.flags.AD)
    if found is not None:
        records = tuple(_record(each) for each in found)
        return Answer(records, max(0, min(ttl, found.ttl)), authentic=authentic)
    return Answer((), min(ttl, _denial(message.authority)), exists=code == dns.rcode.NOERROR, authentic=authentic)


def _parse(data: bytes) -> dns.message.Message:
    """Parse a message of bounded size. Raises: BadAnswer."""
    if not 12 <= len(data) <= LARGEST_ANSWER:
        raise BadAnswer
    # The numbers of records in its head, before anything is made of them.
    if sum(int.from_bytes(data[at : at + 2], "big") for at in (6, 8, 10)) > MOST_RECORDS:
        raise BadAnswer
    try:
        return dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError) as error:
        raise BadAnswer from error


def _find(section: Sequence[dns.rrset.RRset], name: dns.name.Name, rdtype: int) -> dns.rrset.RRset | None:
    for each in section:
        if each.rdclass == dns.rdataclass.IN and each.rdtype == rdtype and each.name == name:
            return each
    return None


def _follow(section: Sequence[dns.rrset.RRset], name: dns.name.Name, rdtype: int) -> tuple[int, dns.name.Name]:
    """Follow aliases (RFC 1034 3.6.2). Returns the shortest of their TTLs and the last name. Raises: DNSFailure for a loop."""
    ttl = LONGEST_TTL
    for _ in range(MOST_ALIASES + 1):
        if _find(section, name, rdtype) is not None:
            return ttl, name
        alias = _find(section, name, dns.rdatatype.CNAME)
        if alias is None:
            return ttl, name
        ttl, name = min(ttl, alias.ttl), alias[0].target
    raise DNSFailure("the DNS answers with a loop of aliases")


def _denial(authority: Sequence[dns.rrset.RRset]) -> int:
    """Seconds that an absence may be remembered (RFC 2308 5): 0 without an SOA."""
    for each in authority:
        if each.rdtype == dns.rdatatype.SOA and each.rdclass == dns.rdataclass.IN:
            return min(each.ttl, int(each[0].minimum), LONGEST_DENIAL)
    return 0


def _record(data: dns.rdata.Rdata) -> Record:
    if data.rdtype == dns.rdatatype.A:
        return IPv4Address(data.address)  # type: ignore[attr-defined]
    if data.rdtype == dns.rdatatype.AAAA:
        return IPv6Address(data.address)  # type: ignore[attr-defined]
    if data.rdtype == dns.rdatatype.TXT:
        return b"".join(data.strings)  # type: ignore[attr-defined]
    host = data.exchange.to_text(omit_final_dot=True)  # type: ignore[attr-defined]
    return MailExchange(data.preference, "" if host == "." else host.lower())  # type: ignore[attr-defined]
