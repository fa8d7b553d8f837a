"""New DKIM keys sign once DNS shows both of their records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailserver.dkim import key_file
from mailserver.dkim.key_file import DomainKeys
from mailserver.dkim.keys import record_name
from mailserver.net.service import dkim_keys as module
from mailserver.net.service.dkim_keys import CHECK_INTERVAL, DkimRotation

DOMAIN = "example.test"


class Settings:
    """The parts of a configuration that are used."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.server = self
        self.signed_domains = (DOMAIN,)


class World:
    """A rotation over a clock; `texts` is DNS."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.texts: dict[str, list[str] | None] = {}
        self.asked: list[Sequence[str]] = []
        self.reloads = 0
        self.directory = directory
        keys = DomainKeys(DOMAIN, ()).with_set("one", 0).with_waiting_signing(0)
        self.write(keys)

        async def at_once(_reactor: Any, work: Any, *arguments: Any) -> Any:
            return work(*arguments)

        monkeypatch.setattr(module, "in_thread", at_once)
        settings: Any = Settings(directory)
        self.rotation = DkimRotation(
            self.clock, config=lambda: settings, reload=self.reload, find=self.find, wall=lambda: 5.0
        )

    def write(self, keys: DomainKeys) -> None:
        with key_file.changing(self.directory):
            key_file.write(self.directory, keys)

    @property
    def keys(self) -> DomainKeys:
        keys = key_file.read(self.directory, DOMAIN)
        assert keys is not None
        return keys

    @property
    def signing(self) -> str:
        assert self.keys.signing is not None
        return self.keys.signing.name

    def find(self, _config: Any, names: Sequence[str]) -> dict[str, list[str] | None]:
        self.asked.append(names)
        return {name: self.texts.get(name, []) for name in names}

    async def reload(self) -> Any:
        self.reloads += 1


def test_keys_wait_for_both_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.rotation.start()
    assert world.asked == [], "nothing waits"
    world.write(world.keys.with_set("two", 1))
    assert world.keys.waiting is not None
    rsa, ed25519 = world.keys.waiting.keys
    world.texts[record_name(rsa.selector, DOMAIN)] = [rsa.record]
    world.clock.advance(CHECK_INTERVAL)
    assert world.asked == [[record_name(key.selector, DOMAIN) for key in (rsa, ed25519)]]
    world.texts[record_name(ed25519.selector, DOMAIN)] = None
    world.clock.advance(CHECK_INTERVAL)
    assert (world.signing, world.reloads) == ("one", 0)
    world.texts[record_name(ed25519.selector, DOMAIN)] = [ed25519.record]
    world.clock.advance(CHECK_INTERVAL)
    assert (world.signing, world.reloads) == ("two", 1)
    world.clock.advance(CHECK_INTERVAL)
    assert len(world.asked) == 3, "nothing waits any more"
    world.rotation.stop()


def test_an_answer_without_sense_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.write(world.keys.with_set("two", 1))
    monkeypatch.setattr(world.rotation, "_find", lambda *_: {})
    world.rotation.start()
    assert (world.signing, world.reloads) == ("one", 0)
    world.rotation.stop()
