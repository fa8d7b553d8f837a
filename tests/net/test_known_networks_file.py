"""The file of known networks: read, gathered, written in a thread, and what is done where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from mailserver.auth.throttling.known_networks import KnownNetworks, Row
from mailserver.net.log.format import body_of
from mailserver.net.service.known_networks_file import FILE, ROWS_AT_ONCE, SAVE_AFTER, KnownNetworksFile
from tests.net.test_exposures import Reactor

HOME = ("anna@example.test", "192.0.2.0/24")


class Site:
    def __init__(self, directory: Path) -> None:
        self.reactor = Reactor()
        self.file = KnownNetworksFile(self.reactor, directory / "state")
        self.file.load()
        self.file.known.on_change = self.file.changed
        self.path = directory / "state" / FILE


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_changes_are_gathered_written_once_and_read_at_the_next_start(site: Site, tmp_path: Path) -> None:
    for number in range(50):
        site.file.known.add((HOME[0], f"10.0.{number}.0/24"))
    assert not site.path.exists()
    site.reactor.advance(SAVE_AFTER)
    assert site.reactor.work() == 1
    assert site.path.stat().st_mode & 0o777 == 0o600
    again = Site(tmp_path)
    assert len(again.file.known) == 100, "50 pairs, and 50 networks alone"
    assert again.file.known.is_known((HOME[0], "10.0.7.0/24"))
    site.reactor.advance(10 * SAVE_AFTER)
    assert site.reactor.work() == 0, "nothing has changed"


def test_the_end_writes_what_is_not_written_and_what_came_meanwhile(site: Site, tmp_path: Path) -> None:
    site.file.known.add(HOME)
    site.reactor.advance(SAVE_AFTER)
    site.file.known.add((HOME[0], "198.51.100.0/24"))
    ended: list[None] = []
    site.file.stop().addCallback(ended.append)
    assert not ended
    while site.reactor.work():
        pass
    assert ended == [None]
    assert len(Site(tmp_path).file.known) == 4


def test_rows_of_workers_are_merged_and_nonsense_is_not(site: Site) -> None:
    worker = KnownNetworks(site.file.known.key)
    told: list[Row] = []
    worker.on_change = told.extend
    worker.add(HOME)
    for nonsense in (["x"], [{}], [["x", 1]], [[1, 2, 3]], [[1, 1]] * (ROWS_AT_ONCE + 1)):
        site.file.take(nonsense)
    assert len(site.file.known) == 0
    site.file.take([list(row) for row in told])
    assert site.file.known.is_known(HOME)
    site.reactor.advance(SAVE_AFTER)
    assert site.reactor.work() == 1


def test_a_damaged_file_is_set_aside(site: Site, tmp_path: Path) -> None:
    site.path.parent.mkdir()
    site.path.write_bytes(b"junk")
    with capturedLogs() as events:
        again = Site(tmp_path)
    assert "is set aside" in str(body_of(events[0]))
    assert again.path.with_suffix(".damaged").read_bytes() == b"junk"
    again.file.known.add(HOME)
    again.reactor.advance(SAVE_AFTER)
    again.reactor.work()
    assert Site(tmp_path).file.known.is_known(HOME)


def test_a_directory_that_cannot_be_written_is_told_once(site: Site) -> None:
    site.path.parent.write_text("a file")
    with capturedLogs() as events:
        for number in range(3):
            site.file.known.add((HOME[0], f"10.0.{number}.0/24"))
            site.reactor.advance(SAVE_AFTER)
            site.reactor.work()
    assert [event for event in events if "until the server stops" in str(body_of(event))] != []
    assert len(events) == 1
    assert len(site.file.known) == 6
