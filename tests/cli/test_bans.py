"""What `mailserver bans` asks for and prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailserver.cli.control import Answer
from tests.cli.test_administration import documented
from tests.cli.test_sessions import run

ROW = {
    "client": "192.0.2.7",
    "reason": "a scanner\x1b[2J",
    "by": "administrator",
    "since": 0,
    "until": 3600,
    "seconds_left": 90,
    "times": 2,
}


def test_the_table_and_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, asked = run(tmp_path, monkeypatch, Answer(ok=True, lines=(), data=[ROW]), "bans", "list")
    assert result.exit_code == 0
    assert asked == [("bans", {})]
    assert "1m30s" in result.output
    assert "\x1b" not in result.output
    result, _asked = run(tmp_path, monkeypatch, Answer(ok=True, lines=(), data=[ROW]), "bans", "list", "--json")
    assert json.loads(result.stdout) == [ROW]
    assert ROW.keys() == documented()["mailserver bans list"]


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ([], {}),
        (["--for", "7d"], {"seconds": "604800"}),
        (["--for", "90s", "--force"], {"seconds": "90", "force": "yes"}),
    ],
)
def test_adding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], more: dict[str, str]) -> None:
    answer = Answer(ok=True, lines=(), data=ROW)
    result, asked = run(tmp_path, monkeypatch, answer, "bans", "add", "192.0.2.7", "--reason", "a scanner", *words)
    assert result.exit_code == 0
    assert asked == [("bans-add", {"client": "192.0.2.7", "reason": "a scanner", **more})]
    assert "192.0.2.7" in result.stdout


@pytest.mark.parametrize("time", ["", "7", "d", "0d", "-1h", "1.5h", "7 d", "9999999999d"])
def test_a_time_without_sense_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time: str) -> None:
    result, asked = run(tmp_path, monkeypatch, Answer(ok=True, lines=()), "bans", "add", "192.0.2.7", "--for", time)
    assert result.exit_code == 2
    assert asked == []


def test_removing_and_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(ok=True, lines=(), data=ROW)
    result, asked = run(tmp_path, monkeypatch, answer, "bans", "remove", "192.0.2.7", "--json")
    assert (result.exit_code, asked) == (0, [("bans-remove", {"client": "192.0.2.7"})])
    assert json.loads(result.stdout) == ROW
    assert run(tmp_path, monkeypatch, answer, "bans", "remove", "192.0.2.7")[0].stdout.startswith("lifted this ban")
    for words in (["add", "192.0.2.7"], ["remove", "192.0.2.7"]):
        result, _asked = run(tmp_path, monkeypatch, Answer(ok=False, lines=("a sentence",)), "bans", *words)
        assert result.exit_code == 1
        assert result.stderr.strip() == "a sentence"
        assert result.stdout == ""
