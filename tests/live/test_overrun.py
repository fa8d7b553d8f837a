"""A command that computes without end on the reactor's thread: its session is cut, by name, and the worker goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.conftest import no_bugs
from tests.hostile.wire import log_in
from tests.server import ROOT, Server

PLANTED = """
import attrs
from mailserver.imap.commands import TABLE

async def burn(session, command):
    while True:
        try:
            sum(range(1000))
        except Exception:
            continue

TABLE["ID"] = attrs.evolve(TABLE["ID"], run=burn)
"""
"""In place of sitecustomize, which Python imports at its start: a command with a fault."""
USER = "anna@example.test"


@pytest.fixture(params=[0, 2])
def faulty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server", workers=request.param)
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(PLANTED)
    server.extra["PYTHONPATH"] = os.pathsep.join([str(planted), str(ROOT)])
    with server:
        yield server


def test_it_is_cut_by_name_and_bystanders_survive(faulty: Server) -> None:
    bystanders = [log_in(faulty, "imaps", "ben@example.test") for _ in range(6)]
    attacker = log_in(faulty, "imaps", USER)
    attacker.send(b"a ID NIL\r\n")
    with attacker:
        assert attacker.to_the_end() == b""
    line = faulty.wait_for(r"\] (turn-overrun session=\S+ protocol=imaps peer=127\.0\.0\.1 .*)\n")[1]
    assert f"user={USER}" in line
    assert "command=ID" in line
    assert "sitecustomize.py:" in line, "the place that computes is named"
    for bystander in bystanders:
        with bystander:
            bystander.in_step()
    with log_in(faulty, "imaps", USER) as again:
        again.in_step()
    assert "no sign of life" not in faulty.log
    assert "has ended; it is replaced" not in faulty.log
    no_bugs(faulty.log)
