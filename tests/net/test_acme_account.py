"""The administrator and the account at an authority: what is refused, and what else happens when its key changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred, fail, succeed

from mailserver.net.admin.control_socket import BadRequest, DataAnswer
from mailserver.net.certificates import acme_account as module
from mailserver.net.certificates.acme_account import NO_TABLE, AcmeAccount
from mailserver.net.connection import coroutines
from mailserver.tls.acme.child import AcmeError
from mailserver.tls.changes.transaction import ChangeRefused
from tests.net.test_acme import at_once, done, site_of

HOST = "mail.example.test"


class World:
    """Stands for the orders, the certificates and the authority; `did` is what was asked of them."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = site_of(directory, [HOST]).config()
        self.did: list[Any] = []
        self.quiet = True
        self.fault: Exception | None = None
        self.recorded: Any = SimpleNamespace(fingerprint="f" * 64), True
        self.by_account = True

        def ask(name: str) -> Any:
            def asked(_config: object, *given: object, **more: object) -> Any:
                if self.fault is not None:
                    raise self.fault
                self.did.append((name, *given, *more.values()))
                if name == "revoke":
                    return self.by_account
                return {"address": "https://ca.test/1", "status": "valid", "contact": ""}

            return asked

        for name in ("describe", "deactivate", "roll_over", "finish_roll_over", "revoke"):
            monkeypatch.setattr(module.account, name, ask(name))
        monkeypatch.setattr(coroutines, "deferToThreadPool", at_once)
        self.account = AcmeAccount(
            SimpleNamespace(getThreadPool=lambda: None),
            config=lambda: self.config,
            orders=self,  # type: ignore[arg-type]
            certificates=SimpleNamespace(recorded=self._recorded, revoked=self._revoked),  # type: ignore[arg-type]
            reload=self._reload,
        )

    first: Any = None

    @contextlib.contextmanager
    def pause(self) -> Iterator[bool]:
        self.did.append("held up")
        yield self.quiet
        self.did.append("going on")

    def order_now(self, hosts: list[str]) -> None:
        self.did.append(("hurry", *hosts))

    async def _reload(self) -> tuple[bool, list[str]]:
        self.did.append("reload")
        return True, ["taken up"]

    def _recorded(self, *_which: object) -> Deferred[Any]:
        return fail(self.recorded) if isinstance(self.recorded, Exception) else succeed(self.recorded)

    def _revoked(self, fingerprint: str) -> Deferred[None]:
        self.did.append(("noted", fingerprint[:3]))
        return succeed(None)

    def ask(self, command: str, **arguments: Any) -> DataAnswer:
        told: DataAnswer = done(self.account.commands()[command](arguments))
        return told


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


CHANGES = [("acme-rollover", {}, "roll_over"), ("acme-account", {"what": "deactivate"}, "deactivate")]


@pytest.mark.parametrize(("command", "arguments", "name"), CHANGES)
def test_a_change_of_the_key_waits_for_no_order_and_reaches_all_workers(
    world: World, command: str, arguments: dict[str, str], name: str
) -> None:
    assert world.ask(command, **arguments).ok
    assert world.did == ["held up", (name,), "reload", "going on"]


@pytest.mark.parametrize(("command", "arguments", "name"), CHANGES)
def test_while_orders_run_it_is_refused(world: World, command: str, arguments: dict[str, str], name: str) -> None:
    world.quiet = False
    told = world.ask(command, **arguments)
    assert not told.ok
    assert "orders signed with the account's key are running" in told.lines[0]
    assert (name,) not in world.did


@pytest.mark.parametrize(
    ("command", "arguments"),
    [*((command, more) for command, more, _name in CHANGES), ("acme-account", {"what": "show"})],
)
def test_what_the_authority_says_against_it_is_told(world: World, command: str, arguments: dict[str, str]) -> None:
    world.fault = AcmeError("the authority refuses: \x1b[2Jno")
    told = world.ask(command, **arguments)
    assert (told.ok, told.lines) == (False, ("the authority refuses:  [2Jno",))
    assert "reload" not in world.did


def test_a_revoked_certificate_that_is_served_is_asked_for_anew(world: World) -> None:
    told = world.ask("acme-revoke", host=HOST, id="", reason="superseded")
    assert told.ok
    assert world.did == [("revoke", world.recorded[0], "superseded"), ("noted", "fff"), ("hurry", HOST)]
    world.did.clear()
    world.by_account = False
    told = world.ask("acme-revoke", host=HOST, id="", reason="superseded")
    assert "its own key signed the request" in told.lines[0]
    world.did.clear()
    world.recorded = world.recorded[0], False
    assert len(world.ask("acme-revoke", host=HOST, id="7", reason="superseded").lines) == 1
    assert ("hurry", HOST) not in world.did
    world.did.clear()
    world.recorded = ChangeRefused([f"{HOST}: has no such activation"])
    assert world.ask("acme-revoke", host=HOST, id="8", reason="superseded").lines == (
        f"{HOST}: has no such activation",
    )
    assert world.did == []


def test_one_of_a_host_that_gets_none_from_the_authority_is_not_asked_for(world: World) -> None:
    told = world.ask("acme-revoke", host="files.example.test", id="", reason="superseded")
    assert told.lines[1] == "files.example.test: is still served with it: replace it by one with a new key"
    assert not [each for each in world.did if each[0] == "hurry"]


def test_without_an_authority_there_is_no_account(world: World) -> None:
    world.config = attrs.evolve(world.config, acme=None)
    for command, arguments in (
        ("acme-account", {"what": "show"}),
        ("acme-rollover", {}),
        ("acme-revoke", {"host": HOST, "id": "", "reason": "unspecified"}),
    ):
        told = world.ask(command, **arguments)
        assert (told.ok, told.lines) == (False, (NO_TABLE,))
    assert world.did == []


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("acme-account", {}),
        ("acme-account", {"what": "delete"}),
        ("acme-rollover", {"what": "x"}),
        ("acme-revoke", {"host": HOST}),
        ("acme-revoke", {"host": HOST, "id": 5, "reason": "superseded"}),
        ("acme-revoke", {"host": HOST, "id": "x", "reason": "superseded"}),
        ("acme-revoke", {"host": HOST, "id": "9" * 30, "reason": "superseded"}),
        ("acme-revoke", {"host": HOST, "id": "", "reason": "because"}),
    ],
)
def test_what_no_command_takes(world: World, command: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        world.ask(command, **arguments)
    assert world.did == []


def test_what_was_begun_before_is_ended_and_told_to_all_and_hinders_no_start(world: World) -> None:
    assert world.first == world.account.finish
    done(Deferred.fromCoroutine(world.account.finish()))
    assert world.did == [("finish_roll_over",), "reload"]
    world.did.clear()
    world.fault = AcmeError("it is down")
    done(Deferred.fromCoroutine(world.account.finish()))
    assert world.did == []
