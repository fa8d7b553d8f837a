"""What LMTP and submission ask of the decisions: one for each message with several copies, and none for others."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from mailserver.auth.interfaces import Entry
from mailserver.errors import StorageFailure
from mailserver.queue.model import TokenRefused
from tests.filing.fakes import FakeDecisions
from tests.smtp.world import MESSAGE, FakeHop, World, begin

ANNA, BERT = "anna@example.test", "bert@example.org"


class Site:
    def __init__(self, directory: Path, decisions: FakeDecisions, hop: FakeHop | None = None) -> None:
        self.world = World(directory, hop)
        self.world.authenticator.entries["all@example.test"] = Entry((ANNA, BERT))
        self.world.submission = attrs.evolve(self.world.submission, decisions=decisions)
        self.world.lmtp = attrs.evolve(self.world.lmtp, decisions=decisions)
        self.decisions = decisions

    def lmtp(self, *recipients: bytes) -> list[bytes]:
        client = self.world.lhlo()
        client.ask(begin(*recipients) + b"DATA\r\n")
        return client.ask(MESSAGE + b".\r\n").splitlines()

    @property
    def counts(self) -> tuple[int, int]:
        return len(self.world.kept()), len(self.world.kept(BERT))


def test_each_recipient_of_lmtp_has_a_decision_of_its_own_if_it_has_several_users(tmp_path: Path) -> None:
    site = Site(tmp_path, FakeDecisions())
    assert [line[:3] for line in site.lmtp(ANNA.encode(), b"all@example.test", BERT.encode())] == [b"250"] * 3
    assert len(site.decisions.forgotten) == 1
    assert site.counts == (2, 2)
    assert site.world.left_behind() == []


def test_where_it_cannot_be_decided_others_are_delivered_to(tmp_path: Path) -> None:
    site = Site(tmp_path, FakeDecisions(StorageFailure("locked")))
    lines = site.lmtp(ANNA.encode(), b"all@example.test", BERT.encode())
    assert [line[:3] for line in lines] == [b"250", b"451", b"250"]
    assert site.counts == (1, 1)
    assert site.world.left_behind() == []


@pytest.mark.parametrize("recipients", [(b"all@example.test",), (ANNA.encode(), BERT.encode())], ids=["alias", "two"])
def test_a_submission_with_several_copies_has_one_decision(tmp_path: Path, recipients: tuple[bytes, ...]) -> None:
    site = Site(tmp_path, FakeDecisions())
    assert site.world.submit(MESSAGE, *recipients).startswith(b"250")
    assert len(site.decisions.forgotten) == 1
    assert site.counts == (1, 1)


def test_a_submission_with_one_copy_has_none(tmp_path: Path) -> None:
    site = Site(tmp_path, FakeDecisions(AssertionError("nothing to decide")), FakeHop(piece=10_000))
    assert site.world.submit(MESSAGE, BERT.encode()).startswith(b"250")
    assert site.world.submit(MESSAGE, BERT.encode(), b"x@example.net").startswith(b"250")
    assert site.counts == (0, 2)


def test_the_hop_gets_no_message_that_could_not_be_decided(tmp_path: Path) -> None:
    hop = FakeHop(piece=10_000)
    site = Site(tmp_path, FakeDecisions(TokenRefused()), hop)
    assert site.world.submit(MESSAGE, ANNA.encode(), BERT.encode(), b"x@example.net").startswith(b"451")
    assert hop.messages == []
    assert site.counts == (0, 0)
    assert site.world.left_behind() == []


def test_what_the_hop_refuses_is_decided_no_more(tmp_path: Path) -> None:
    site = Site(tmp_path, FakeDecisions(), FakeHop(piece=10_000, replies={b".": b"554 5.7.1 spam\r\n"}))
    assert site.world.submit(MESSAGE, ANNA.encode(), BERT.encode(), b"x@example.net").startswith(b"554")
    assert site.counts == (0, 0)
    assert site.decisions.committed == []
    assert len(site.decisions.forgotten) == 1
    assert site.world.left_behind() == []
