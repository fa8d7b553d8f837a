"""The mail of a benchmark run: the corpus, and the Maildirs that are filled with it."""

from __future__ import annotations

import email
import email.policy
import hashlib
import re
import statistics
from collections import Counter
from email.message import EmailMessage, Message
from functools import cache
from pathlib import Path

import pytest

from benchmarks import corpus, plain
from benchmarks.accounts import PEOPLE, size_of
from benchmarks.corpus import RARE
from benchmarks.mail import DISTINCT, Original, fill, to_wire
from benchmarks.scenarios import SCENARIOS

SAMPLE = 1000


@cache
def _sample() -> tuple[bytes, ...]:
    return tuple(corpus.message(seed) for seed in range(SAMPLE))


@cache
def _parsed() -> tuple[Message, ...]:
    return tuple(email.message_from_bytes(each) for each in _sample())


def test_the_same_seed_makes_the_same_message() -> None:
    again = hashlib.sha256(b"".join(corpus.message(seed) for seed in range(0, SAMPLE, 10)))
    assert hashlib.sha256(b"".join(_sample()[::10])).digest() == again.digest()
    assert len(set(_sample())) == SAMPLE


def test_sizes_are_those_of_people() -> None:
    sizes = [len(each) for each in _sample()]
    assert 10_000 < statistics.mean(sizes) < 16_000
    assert 3_000 < statistics.median(sizes) < 6_000
    assert max(sizes) > 100_000


def test_lines_end_with_lf_on_disk_and_with_crlf_on_the_network() -> None:
    for each in _sample()[:100]:
        assert b"\r" not in each
        assert to_wire(each) == each.replace(b"\n", b"\r\n")
    kept = plain.message(3)
    assert to_wire(kept) == kept


def test_every_message_parses_without_defects() -> None:
    for each in _parsed():
        for part in each.walk():
            assert not part.defects, (each["Message-ID"], part.defects)


def test_shares_of_kinds() -> None:
    kinds = Counter(each.get_content_type() for each in _parsed())
    for kind, share in {
        "text/plain": 38, "multipart/alternative": 29, "multipart/mixed": 25, "multipart/related": 6, "multipart/report": 2,
    }.items():  # fmt: skip
        assert abs(kinds[kind] - share * SAMPLE / 100) < SAMPLE / 25, (kind, kinds[kind])
    assert kinds.total() == SAMPLE


def test_header_fields_are_those_of_delivered_mail() -> None:
    for each in _parsed():
        assert all(each[name] for name in ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version"))
        assert len(each.get_all("Received", ())) >= 2
    encoded = sum("=?" in each["Subject"] for each in _parsed())
    assert SAMPLE / 5 < encoded < SAMPLE / 2
    assert sum("In-Reply-To" in each for each in _parsed()) > SAMPLE / 2
    modern = email.message_from_bytes(_sample()[0], _class=EmailMessage, policy=email.policy.default)
    assert isinstance(modern, EmailMessage)


def test_the_rare_word_is_in_one_of_a_thousand() -> None:
    found = [seed for seed in range(DISTINCT) if RARE.encode() in corpus.message(seed)]
    assert found == [17, 1017]
    assert all(RARE in email.message_from_bytes(corpus.message(seed))["Subject"] for seed in found)


@pytest.mark.parametrize("octets", [4096, 102_400])
def test_a_message_of_a_size(octets: int) -> None:
    assert len(corpus.message_of(octets)) == octets
    assert not email.message_from_bytes(corpus.message_of(octets)).defects


def test_a_maildir_has_links_with_sizes_in_their_names(tmp_path: Path) -> None:
    data = b"a: b\n\nc\n"
    (tmp_path / "1").write_bytes(data)
    fill(tmp_path / "home" / "Maildir", [Original(tmp_path / "1", f",S={len(data)},W={len(to_wire(data))}")], 7)
    names = [each.name for each in (tmp_path / "home" / "Maildir" / "cur").iterdir()]
    assert len(names) == 7
    assert all(re.fullmatch(r"\d+\.M\dP1\.bench,S=8,W=11:2,F?S?", name) for name in names)
    assert sum(name.endswith("S") for name in names) == 4


def test_mailboxes_of_people_differ_in_size() -> None:
    sizes = sorted(map(size_of, range(PEOPLE)))
    assert sizes[0] < 50
    assert 100 < statistics.median(sizes) < 400
    assert sizes[-1] > 2000


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert not [name for name, count in Counter(each.name for each in SCENARIOS).items() if count > 1]
