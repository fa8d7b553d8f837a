"""Three `MailServices` beside another service of the program: nothing of the process changes, and nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from mailserver.config.model import Auth
from mailserver.embedding import InvalidConfiguration, MailServices
from tests.embedding.program import Clients, Program, make_files
from tests.server import ROOT


def answer(program: Program) -> dict[str, Any]:
    assert program.process.stdout is not None
    line = program.process.stdout.readline()
    assert line, program.log.read_text()
    found: dict[str, Any] = json.loads(line)
    return found


def order(program: Program, text: str) -> dict[str, Any]:
    assert program.process.stdin is not None
    program.process.stdin.write(text + "\n")
    program.process.stdin.flush()
    return answer(program)


def try_reload(program: Program, directory: Path, port: int) -> None:
    """What is wrong changes nothing; what is right holds from now on."""
    file = directory / "mail.toml"
    before = file.read_text()
    file.write_text(before + "[limits]\nconnections = 1\n[imap]\nnothing = 1\n")
    assert "[imap] nothing" in order(program, "reload")["refused"]
    first, second = Clients(directory).imap(port), Clients(directory).imap(port)
    file.write_text(before + "[limits]\nconnections = 1\n")
    assert "done" in order(program, "reload")
    first.noop()
    second.logout()
    with socket.create_connection(("127.0.0.1", port), 20) as third:
        assert third.recv(100) == b"* BYE [LIMIT] too many connections\r\n"
    first.logout()


def test_a_configuration_that_cannot_be_served(tmp_path: Path) -> None:
    make_files(tmp_path)
    file = tmp_path / "mail.toml"
    file.write_text(file.read_text() + "[limits]\nconnections = 0\n")
    with pytest.raises(InvalidConfiguration, match=r"\[limits\] connections"):
        MailServices.from_file(file, Clock())


def test_a_back_end_that_cannot_be_made(tmp_path: Path) -> None:
    """Found at the start, where the configuration was made in code."""
    make_files(tmp_path)
    config = MailServices.from_file(tmp_path / "mail.toml", Clock()).config
    services = MailServices(attrs.evolve(config, auth=Auth(backends=("nothing:",))), MemoryReactorClock())
    with pytest.raises(InvalidConfiguration, match="nothing"):
        services.startService()
    assert not services.running


def test_a_stop_ends_what_a_failed_start_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path)
    services = MailServices.from_file(tmp_path / "mail.toml", MemoryReactorClock())

    def fail(_services: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("mailserver.wiring.services.Services.start", fail)
    with pytest.raises(OSError, match="no room"):
        services.startService()
    assert not services.running
    stopped: list[object] = []

    async def stop(made: object) -> None:
        stopped.append(made)

    monkeypatch.setattr("mailserver.wiring.services.Services.stop", stop)
    services.stopService()
    assert len(stopped) == 1


def test_a_start_before_the_end_of_a_stop_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the stop would take away the objects of the start. A second stop waits for the first."""
    make_files(tmp_path)
    services = MailServices.from_file(tmp_path / "mail.toml", MemoryReactorClock())
    ended: Deferred[None] = Deferred()
    stops = 0

    async def stop(_services: object) -> None:
        nonlocal stops
        stops += 1
        await ended

    monkeypatch.setattr("mailserver.wiring.services.Services.start", lambda _services: None)
    monkeypatch.setattr("mailserver.wiring.services.Services.stop", stop)
    services.startService()
    with pytest.raises(RuntimeError, match="started before"):
        services.startService()
    fired: list[None] = []
    for _ in range(2):
        services.stopService().addCallback(fired.append)
    with pytest.raises(RuntimeError, match="wait for the Deferred of stopService"):
        services.startService()
    assert not services.running
    assert not fired
    ended.callback(None)
    assert len(fired) == 2
    assert stops == 1
    services.startService()
    assert services.running


def test_mail_is_not_written_as_root_for_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path)
    config = MailServices.from_file(tmp_path / "mail.toml", Clock()).config
    services = MailServices(attrs.evolve(config, server=attrs.evolve(config.server, user="nobody")), Clock())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(InvalidConfiguration, match="twistd with --uid nobody"):
        services.startService()


def test_the_configuration_on_the_page() -> None:
    page = (ROOT / "docs" / "embedding.md").read_text()
    _tac, in_code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(in_code, names)
    assert MailServices(names["config"], Clock()).tls is None


def test_services_start_and_stop_twice(tmp_path_factory: pytest.TempPathFactory) -> None:
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    make_files(one)
    make_files(other)
    command = [sys.executable, "-m", "tests.embedding.beside", str(one), str(other)]
    with Program(one, command) as program:
        for turn in range(2):
            began = answer(program)
            assert began["other"] == 7 + turn, "the exit status of the other service's process"
            client = Clients(one).imap(began["ports"][0])
            client.starttls(Clients(one).context)
            Clients(one).log_in(client)
            reader = Clients(other).pop3(began["ports"][1])
            reader.stls(Clients(other).context)
            reader.user(Clients(other).user)
            reader.pass_(Clients(other).password)
            reader.quit()
            plain = Clients(one).imap(began["ports"][2])
            assert "STARTTLS" not in plain.capabilities
            Clients(one).log_in(plain)
            if turn == 1:
                try_reload(program, one, began["ports"][0])
            ended = order(program, "stop")
            for same in ("signals", "gc", "switch", "logging"):
                assert began["within"][same] == ended["before"][same], same
            for each, value in ended["before"].items():
                assert ended["after"][each] == value, each
        assert program.process.wait(20) == 0
        assert "Traceback" not in program.log.read_text()
