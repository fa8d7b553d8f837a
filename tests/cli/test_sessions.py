"""What `mailserver who` and `status` print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mailserver.cli import control, main
from mailserver.cli.columns import duration, octets
from mailserver.cli.control import Answer
from tests.server import make_demonstration


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0k"),
        (1536, "1.5k"),
        (20480, "20k"),
        (5 * 1024**3, "5.0G"),
        (2**60, "1048576T"),
    ],
)
def test_octets(number: int, words: str) -> None:
    assert octets(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (90, "1m30s"), (3600, "1h"), (90000, "1d1h"), (86460, "1d1m")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, *words: str) -> tuple[Result, list[Any]]:
    asked: list[Any] = []

    def ask(_directory: Path, request: str, **arguments: str) -> Answer:
        asked.append((request, arguments))
        return answer

    make_demonstration(tmp_path, 10000)
    monkeypatch.setattr(control, "ask", ask)
    return CliRunner().invoke(main, [*words, "--config", str(tmp_path / "mailserver.toml")]), asked


ROW = {
    "session": "1.2",
    "user": "anna\x1b[2J",
    "protocol": "imaps",
    "peer": "2001:db8::1",
    "port": 4711,
    "tls": None,
    "since": 0,
    "mailbox": None,
    "received": 10,
    "sent": 2048,
    "worker": 1,
}


def test_nothing_that_a_client_chose_moves_the_terminals_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, asked = run(tmp_path, monkeypatch, Answer(ok=True, lines=(), data=[ROW]), "who", "--user", "anna")
    assert asked == [("who", {"user": "anna"})]
    assert done.exit_code == 0, done.output
    head, row = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert row.split()[:5] == ["1.2", "anna\\x1b[2J", "imaps", "[2001:db8::1]:4711", "-"]
    assert row.split()[-3:] == ["10", "2.0k", "1"]
    assert head.index("ADDRESS") == row.index("[2001")


def test_a_worker_that_does_not_answer_is_told_and_makes_the_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer(ok=False, lines=("worker 1 (pid 7) does not answer",), data=[ROW])
    done, _ = run(tmp_path, monkeypatch, answer, "who")
    assert done.exit_code == 1
    assert "worker 1 (pid 7) does not answer" in done.stderr
    assert "1.2" in done.stdout
    data = {
        "listeners": [],
        "certificates": [certificate("soon", 7, 6), certificate("over", 0, -2), certificate("well", None, 60)],
        "exposures": 2,
        "acme": [],
        "workers": [{"worker": 1, "pid": 7, "since": 1, "state": "serving", "answers": False}],
    }
    done, _ = run(tmp_path, monkeypatch, Answer(ok=False, lines=("x",), data=data), "status")
    assert done.exit_code == 1
    assert "does not answer" in done.stdout
    assert "exposed passwords: 2" in done.stderr
    warnings = [line for line in done.stderr.splitlines() if "certificate" in line]
    assert warnings == [
        "warning: soon: the certificate ends in 6 days",
        "warning: over: the certificate has ended; clients refuse it",
    ]


def certificate(host: str, warning: int | None, days_left: int) -> dict[str, Any]:
    fields = {"domain": "example.test", "not_after": "2026-01-01", "origin": "file", "issuer": "CN=x", "default": False}
    return {"host": host, "warning": warning, "days_left": days_left, **fields}
