"""`mailserver acme` as the administrator sees it: tables, JSON and exit statuses, of what a server answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mailserver.cli import acme as module
from mailserver.cli.control import Answer, NotRunning
from mailserver.cli.root import main

HOST = "mail.example.test"
ROW = {
    "host": HOST,
    "not_after": 1_800_000_000,
    "self_signed": False,
    "running": False,
    "next": 1_799_000_000,
    "tried": 1_790_000_000,
    "failures": 0,
    "error": "",
    "explanation": "",
}
FAILED = {**ROW, "failures": 2, "error": f"the authority could not verify {HOST}: dns: no TXT record"}


class Fake:
    """A server; `answers` are its, in turn, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer | Exception] = []
        self.asked: list[tuple[str, dict[str, str]]] = []

    def ask(self, _where: Path, request: str, **arguments: str) -> Answer:
        self.asked.append((request, arguments))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    for name in ("ask", "ask_or_fail"):
        monkeypatch.setattr(module, name, fake.ask)
    monkeypatch.setattr(module, "server_config", lambda path: path)
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.0)
    return fake


def run(server: Fake, words: str, *answers: Answer | Exception) -> Result:
    server.answers = list(answers)
    server.asked.clear()
    return CliRunner().invoke(main, ["acme", *words.split()])


def rows(*found: dict[str, Any]) -> Answer:
    return Answer(True, (), list(found))


def test_status_is_1_while_the_last_attempt_of_a_host_has_failed(server: Fake) -> None:
    well = run(server, "status", rows(ROW))
    assert (well.exit_code, well.stderr) == (0, "")
    assert well.stdout.splitlines()[1].split()[:3] == [HOST, "2027-01-15", "08:00"]
    ill = run(server, "status", rows(ROW, FAILED))
    assert ill.exit_code == 1
    assert ill.stderr == f"{HOST}: failed on 2026-09-21 14:13: {FAILED['error']}\n"
    as_json = run(server, "status --json", rows(FAILED))
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (1, [FAILED])


def test_without_hosts_status_says_so(server: Fake) -> None:
    done = run(server, "status", rows())
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no [[domain]] has acme = true\n")
    assert json.loads(run(server, "status --json", rows()).stdout) == []
    refused = run(server, "status", Answer(False, ("it is ending",), []))
    assert (refused.exit_code, refused.stderr) == (1, "it is ending\n")


@pytest.mark.parametrize(("row", "status"), [(ROW, 0), (FAILED, 1)])
def test_renew_waits_for_what_comes_of_it(server: Fake, row: dict[str, Any], status: int) -> None:
    asked = Answer(True, (f"{HOST}: ordered",))
    done = run(server, f"renew {HOST.upper()}", asked, rows({**row, "running": True}), rows(row))
    assert done.exit_code == status
    assert server.asked[0] == ("acme-renew", {"host": HOST})
    assert len(server.asked) == 3
    assert done.stdout.splitlines()[1].startswith(f"{HOST}: {'no certificate: the authority' if status else 'until '}")
    assert run(server, f"renew {HOST} --no-wait", asked).exit_code == 0
    assert len(server.asked) == 1
    assert run(server, "renew", Answer(False, ("no [[domain]] has acme = true",))).exit_code == 1
    ended = run(server, "renew", asked, NotRunning("no server is running here"))
    assert (ended.exit_code, ended.stderr) == (1, "Error: no server is running here\n")


def test_the_account_in_words_and_in_json(server: Fake) -> None:
    told = {"address": "https://ca.test/1", "status": "valid", "contact": ""}
    assert "status:     valid" in run(server, "account", Answer(True, (), told)).stdout.splitlines()
    assert json.loads(run(server, "account --json", Answer(True, (), told)).stdout) == told
    refused = run(server, "account --json", Answer(False, ("the authority cannot be reached",), {}))
    assert (refused.exit_code, refused.stdout, refused.stderr) == (1, "", "the authority cannot be reached\n")


def test_revoke_says_which_and_why(server: Fake) -> None:
    done = run(server, f"revoke {HOST} --activation 7 --reason superseded", Answer(True, ("revoked",)))
    assert done.exit_code == 0
    assert server.asked == [("acme-revoke", {"host": HOST, "id": "7", "reason": "superseded"})]
    run(server, f"revoke {HOST}", Answer(True, ()))
    assert server.asked == [("acme-revoke", {"host": HOST, "id": "", "reason": "unspecified"})]
    for words in (f"revoke {HOST} --activation x", f"revoke {HOST} --activation 0", f"revoke {HOST} --reason other"):
        assert run(server, words, Answer(True, ())).exit_code == 2
        assert server.asked == []
