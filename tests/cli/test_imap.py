"""`mailserver imap capabilities`: each capability with its RFC, its file and its transcript; what the configuration changes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

import mailserver
from mailserver.cli.root import main
from tests.transcript import FOLDER


def rows(*words: str) -> dict[str, dict[str, str]]:
    done = CliRunner().invoke(main, ["imap", "capabilities", "--json", *words], env={"MAILSERVER_CONFIG": ""})
    assert done.exit_code == 0, done.output
    return {row["capability"]: row for row in json.loads(done.stdout)}


def test_each_has_a_reference_a_file_and_a_transcript(demonstration: Path) -> None:
    found = rows("--config", str(demonstration))
    assert len(found) > 30
    for row in found.values():
        assert row["reference"].startswith(("RFC ", "draft-")), row
        assert (Path(mailserver.__file__).parent / row["code"]).is_file(), row
        assert (FOLDER / "imap" / row["transcript"]).is_file(), row
        assert row["listed"] not in ("", "by state"), row


def test_what_the_configuration_switches_off_and_hides(demonstration: Path, tmp_path: Path) -> None:
    rules = '[[imap.hide]]\ncapabilities = ["sort*"]\n[[imap.hide]]\ncapabilities = ["IDLE"]\nusers = ["a*"]\n'
    text = demonstration.read_text(encoding="utf-8") + f"\n[imap]\ncompress = false\n{rules}"
    changed = demonstration.with_name("changed.toml")
    changed.write_text(text, encoding="utf-8")
    found = rows("--config", str(changed))
    assert found["COMPRESS=DEFLATE"]["listed"] == "off: compress = false"
    assert found["SORT"]["listed"] == found["SORT=DISPLAY"]["listed"] == "hidden"
    assert found["IDLE"]["listed"] == "hidden from some"
    assert found["ENABLE"]["listed"] == "always"


def test_the_table_for_a_terminal(demonstration: Path) -> None:
    done = CliRunner().invoke(main, ["imap", "capabilities", "--config", str(demonstration)])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].split() == ["CAPABILITY", "LISTED", "REFERENCE", "CODE", "TRANSCRIPT"]
