"""A running server renews what its own authority has signed: by the clock, in files and without, once and not again."""

from __future__ import annotations

import datetime as dt
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from twisted.internet.defer import Deferred

from mailserver.net.certificates import private_ca as module
from mailserver.net.certificates.private_ca import CHECK_INTERVAL, PrivateCertificates
from mailserver.net.connection import coroutines
from mailserver.tls.ca import authority as making
from mailserver.tls.ca import renewal
from mailserver.tls.ca.renewal import ServedChains
from mailserver.types import Secret
from tests.net.test_certificate_files import Reactor
from tests.tls.site import Site
from tests.tls.test_private_ca import NOW, make, number, records, revoke

FILE_HOST, ADDED_HOST = "mail.example.test", "mail.example.org"
DAYS = 24


class World:
    """A clock that begins at NOW, a host with files, and one without; `answer` is what serving a new one gives."""

    def __init__(self, directory: Path, passphrase: Secret | None = None) -> None:
        self.one = make(directory / "ca", passphrase=passphrase)
        self.passphrase = passphrase
        site = Site(directory).add("example.test", [FILE_HOST]).add("example.org", [ADDED_HOST])
        site.managed.add("example.org")
        site.tls = ['private_ca = "ca/ca.pem"']
        self.site, self.config = site, site.config()
        self.file = directory / "example.test.pem"
        self.served = {FILE_HOST: self.issue(FILE_HOST, "file"), ADDED_HOST: self.issue(ADDED_HOST, "added")}
        self.file.write_bytes(self.served[FILE_HOST].chains[0])
        self.answer = True
        self.calls: list[tuple[str, ...]] = []
        self.reactor = Reactor()
        self.skew = dt.timedelta(0)
        self.renewing = PrivateCertificates(
            self.reactor,
            config=lambda: self.config,
            served=lambda: self.served,
            serving=self,
            now=lambda: self.now,
        )

    @property
    def now(self) -> dt.datetime:
        return NOW + dt.timedelta(seconds=self.reactor.seconds()) + self.skew

    def issue(self, host: str, origin: str) -> ServedChains:
        signer = self.one.unlock(self.passphrase)
        made = self.one.sign(signer, making.make_key().public_key(), [host], "server", days=90, now=NOW)
        return ServedChains(origin, (making.certificate_pem(made),))

    async def renew(self, hosts: Sequence[str], chains: Sequence[bytes], reason: str) -> tuple[bool, list[str]]:
        self.calls.append(("renew", *hosts, reason))
        if self.answer:
            self.served[hosts[0]] = ServedChains("added", tuple(chains))
        return self.answer, ["taken up" if self.answer else "a listener does not show it"]

    async def take_files(self, hosts: Sequence[str]) -> tuple[bool, list[str]]:
        self.calls.append(("files", *hosts))
        self.served[hosts[0]] = ServedChains("file", (self.file.read_bytes(),))
        return True, ["taken up"]

    def pass_hours(self, hours: int) -> None:
        for _ in range(hours):
            self.reactor.advance(CHECK_INTERVAL)

    def end(self, host: str) -> dt.datetime:
        return x509.load_pem_x509_certificate(self.served[host].chains[0]).not_valid_after_utc


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []

    def at_once(_reactor: object, _pool: object, call: Any, *given: Any) -> Deferred[Any]:
        doing: Deferred[Any] = Deferred()
        doing.addCallback(lambda _none: call(*given))
        doing.callback(None)
        return doing

    monkeypatch.setattr(coroutines, "deferToThreadPool", at_once)
    for level in ("info", "warn"):
        monkeypatch.setattr(module.log, level, lambda sentence, **fields: told.append(sentence.format(**fields)))
    return told


def test_each_at_two_thirds_and_then_not_again(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path)
    world.renewing.follow()
    world.pass_hours(60 * DAYS - 2)
    assert (world.calls, lines) == ([], [])
    ends = world.end(FILE_HOST), world.end(ADDED_HOST)
    world.pass_hours(3)
    renewed = [("files", FILE_HOST), ("renew", ADDED_HOST, f"renewed by {world.one.name}")]
    assert world.calls == renewed
    # A certificate begins an hour before it is made, and so two thirds of its life are over an hour sooner.
    later = dt.timedelta(days=60, hours=-1)
    assert [world.end(FILE_HOST) - ends[0], world.end(ADDED_HOST) - ends[1]] == [later, later]
    assert lines == [f"private CA: {host}: renewed" for host in (FILE_HOST, ADDED_HOST)]
    world.pass_hours(59 * DAYS)
    assert world.calls == renewed
    assert len(records(world.one)) == 4


def test_the_list_too(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path)
    world.served = {}
    before = number(world.one)
    world.skew = dt.timedelta(days=240)
    world.renewing.follow()
    assert number(world.one) == before
    world.pass_hours(4 * DAYS)
    assert number(world.one) == before + 1
    assert lines == ["private CA: ca.crl: renewed"]


def test_what_is_not_served_is_tried_later_each_time(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path)
    del world.served[FILE_HOST]
    world.answer = False
    world.skew = dt.timedelta(days=61)
    world.renewing.follow()
    world.pass_hours(10 * DAYS)
    # 5, 10, 20, 40 minutes, 1 h 20, ... up to 12 hours: 5 on the first day, then two a day at most.
    assert 15 <= len(world.calls) <= 30
    words = f"private CA: {ADDED_HOST}: cannot be renewed: a listener does not show it"
    assert set(lines) == {words}
    assert len(lines) in (10, 11), "once a day"
    world.answer = True
    world.pass_hours(DAYS)
    assert lines[-1] == f"private CA: {ADDED_HOST}: renewed"


def test_a_key_with_a_passphrase_is_left_to_the_command(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path, Secret(b"secret"))
    world.skew = dt.timedelta(days=61)
    world.renewing.follow()
    world.pass_hours(3)
    due = "is due to be renewed, and its key has a passphrase: run `mailserver ca renew`"
    assert lines == [f"private CA: {host}: {due}" for host in (FILE_HOST, ADDED_HOST)]
    assert world.calls == []


@pytest.mark.parametrize("gone", ["ca.sqlite", "ca.key", "ca.pem"])
def test_a_part_of_the_authority_is_gone(tmp_path: Path, lines: list[str], gone: str) -> None:
    world = World(tmp_path)
    before = world.file.read_bytes()
    os.unlink(tmp_path / "ca" / gone)
    world.skew = dt.timedelta(days=61)
    world.renewing.follow()
    assert (world.calls, world.file.read_bytes()) == ([], before)
    if gone == "ca.key":
        # Kept elsewhere: the warnings of certificates that end are enough.
        assert lines == []
    else:
        assert all("private CA: " in line for line in lines)
        assert any("restore it from a backup" in line or "there is no authority" in line for line in lines)


def test_a_revoked_one_stays_as_it_is(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path)
    revoke(world.one, FILE_HOST)
    world.skew = dt.timedelta(days=61)
    world.renewing.follow()
    assert [call[1] for call in world.calls] == [ADDED_HOST]
    assert f"{FILE_HOST}: cannot be renewed: the certificate of {FILE_HOST} is revoked" in lines[0]


def test_a_reload_that_names_no_authority_ends_it(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path)
    world.renewing.follow()
    world.site.tls = []
    world.config = world.site.config()
    world.renewing.follow()
    world.skew = dt.timedelta(days=61)
    world.pass_hours(2)
    assert (world.calls, lines) == ([], [])


def test_a_clock_that_is_before_the_authority_signs_nothing(tmp_path: Path, lines: list[str]) -> None:
    """As a machine without one begins: what it signed would have ended when the time is known, and be served."""
    world = World(tmp_path)
    ends, before = (world.end(FILE_HOST), world.end(ADDED_HOST)), number(world.one)
    world.skew = dt.timedelta(days=-400)
    world.renewing.follow()
    world.pass_hours(5)
    assert (world.calls, number(world.one)) == ([], before)
    assert len(lines) == 1
    assert "until the clock is right" in lines[0]
    world.skew = dt.timedelta(0)
    world.pass_hours(5)
    assert (world.calls, number(world.one)) == ([], before)
    assert (world.end(FILE_HOST), world.end(ADDED_HOST)) == ends


def test_a_clock_that_was_a_year_ahead_is_made_up_for(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path)
    world.skew = dt.timedelta(days=365)
    world.renewing.follow()
    world.skew = dt.timedelta(0)
    world.pass_hours(1)
    for host in (FILE_HOST, ADDED_HOST):
        made = x509.load_pem_x509_certificate(world.served[host].chains[0])
        assert made.not_valid_before_utc <= world.now < made.not_valid_after_utc
        assert made.not_valid_after_utc < world.now + dt.timedelta(days=91)
    current = world.one.current_list
    assert current is not None
    assert current.last_update_utc <= world.now
    assert len([line for line in lines if line.endswith(": renewed")]) == 6


def test_an_authority_that_ends_is_told_once_a_day(tmp_path: Path, lines: list[str]) -> None:
    world = World(tmp_path)
    world.served = {}
    world.one.renew_list(world.one.unlock(None), 3650, NOW)
    world.skew = dt.timedelta(days=3649 - 85)
    lines.clear()
    world.renewing.follow()
    world.pass_hours(2 * DAYS - 1)
    ends = [line for line in lines if "the authority ends in" in line]
    assert len(ends) in (2, 3)


def test_a_file_that_cannot_be_written(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    before = world.file.read_bytes()

    def fail(path: Path, *_given: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(renewal, "replace_file", fail)
    world.skew = dt.timedelta(days=61)
    world.renewing.follow()
    assert lines[0] == (f"private CA: {FILE_HOST}: cannot be renewed: {world.file}: No space left on device")
    assert world.file.read_bytes() == before
    assert [call[1] for call in world.calls] == [ADDED_HOST], "one that fails keeps no other"
