"""Files of certificates: taken up once they are still, read again before they are refused, and tried again later."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailserver.net.certificates import certificate_files
from mailserver.net.certificates.certificate_files import PATIENCE, POLL_INTERVAL, RETRY, SETTLE, CertificateFiles
from mailserver.tls.keypair.files import file_states

HOSTS = ("mail.example.test",)


class Reactor(Clock):
    """A clock whose threads are at once."""

    def getThreadPool(self) -> None:
        return None

    def addReader(self, reader: object) -> None:
        pass

    removeReader = addReader  # noqa: N815


class World:
    """Two files, and what was asked to be taken up."""

    def __init__(self, directory: Path) -> None:
        self.reactor = Reactor()
        self.paths = (directory / "cert.pem", directory / "key.pem")
        for path in self.paths:
            path.write_text("1")
        self.seen: dict[Any, Any] = {self.paths: file_states(self.paths)}
        self.taken: list[tuple[float, bool]] = []
        self.answer: bool | None = True
        self.files = CertificateFiles(self.reactor, self.seen, self._take)
        self.files.follow({HOSTS: self.paths})

    async def _take(self, hosts: tuple[str, ...], tell: bool) -> bool | None:
        assert hosts == HOSTS
        self.seen[self.paths] = file_states(self.paths)
        self.taken.append((round(self.reactor.seconds(), 1), tell))
        return self.answer

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.reactor.advance(0.1)

    def change(self, number: int = 0, text: str = "another") -> None:
        new = self.paths[number].with_suffix(".new")
        new.write_text(text)
        os.rename(new, self.paths[number])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    def at_once(_reactor: object, _pool: object, call: Any, *given: Any) -> Any:
        from twisted.internet.defer import succeed

        return succeed(call(*given))

    monkeypatch.setattr(certificate_files, "deferToThreadPool", at_once)
    return World(tmp_path)


def test_nothing_is_read_while_nothing_changes(world: World) -> None:
    world.pass_time(60)
    assert world.taken == []


def test_a_change_is_taken_up_once_it_is_still_without_inotify_too(world: World) -> None:
    world.pass_time(0.1)
    world.change()
    world.pass_time(10)
    ((when, tell),) = world.taken
    assert SETTLE <= when <= POLL_INTERVAL + SETTLE + 0.3
    assert not tell


def test_what_goes_on_changing_waits(world: World) -> None:
    for number in range(20):
        world.change(number % 2, f"piece {number}")
        world.files._check_soon()
        world.pass_time(0.3)
    assert world.taken == []
    world.pass_time(1)
    assert len(world.taken) == 1


def test_what_is_refused_is_read_again_and_then_told(world: World) -> None:
    world.answer = False
    world.change()
    world.pass_time(60)
    (first, first_told), (second, second_told) = world.taken
    assert (first_told, second_told) == (False, True)
    assert PATIENCE - SETTLE <= second - first <= PATIENCE
    world.answer = True
    world.change(1)
    world.pass_time(10)
    assert len(world.taken) == 3


def test_what_may_be_taken_later_is_tried_each_minute(world: World) -> None:
    world.answer = None
    world.change()
    world.pass_time(10 + 3 * RETRY)
    assert [tell for _when, tell in world.taken] == [False, True, False, False, False]
    world.answer = True
    world.pass_time(RETRY + 1)
    assert len(world.taken) == 6
    world.pass_time(5 * RETRY)
    assert len(world.taken) == 6


def test_a_domain_that_is_gone_is_not_read(world: World) -> None:
    world.change()
    world.pass_time(0.1)
    world.files.follow({})
    world.pass_time(60)
    assert world.taken == []


def test_after_the_end_nothing_is_read(world: World) -> None:
    world.change()
    world.pass_time(0.1)
    world.files.stop()
    world.pass_time(60)
    assert world.taken == []
    assert not world.reactor.getDelayedCalls()
