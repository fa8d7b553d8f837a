"""Two `MailServices` beside another service of the program: nothing of the process changes, and nothing stays behind."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.embedding.program import Clients, Program, make_files


def answer(program: Program) -> dict[str, Any]:
    assert program.process.stdout is not None
    line = program.process.stdout.readline()
    assert line, program.log.read_text()
    found: dict[str, Any] = json.loads(line)
    return found


def test_two_services_start_and_stop_twice(tmp_path_factory: pytest.TempPathFactory) -> None:
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
            assert program.process.stdin is not None
            program.process.stdin.write("stop\n")
            program.process.stdin.flush()
            ended = answer(program)
            for same in ("signals", "gc", "switch", "logging"):
                assert began["within"][same] == ended["before"][same], same
            for each, value in ended["before"].items():
                assert ended["after"][each] == value, each
        assert program.process.wait(20) == 0
        assert "Traceback" not in program.log.read_text()
