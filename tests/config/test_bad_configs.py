"""Each directory of tests/bad_configs is a file with mistakes and every line that must be said of it.

The directory is copied beside the pairs good.pem, good.key and other.pem, other.key. In `expected` DIR is the copy;
lines may come in any order, none may be missing and none more.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

from mailserver.config.load import load, read
from mailserver.pop3 import uidl
from mailserver.tls.serving import validation

CASES = sorted(path for path in (Path(__file__).parents[1] / "bad_configs").iterdir() if path.is_dir())
HOSTS = ["mail.example.org", "*.example.org", "mail.example.net", "*.example.net"]


@functools.cache
def pair(name: str) -> tuple[bytes, bytes]:
    return validation.make_self_signed(HOSTS if name == "good" else ["mail.example.org"])


def copy_of(case: Path, directory: Path) -> Path:
    """The file of a case, with its surroundings."""
    shutil.copy(case / "mailserver.toml", directory)
    for name in ("good", "other"):
        certificate, key = pair(name)
        (directory / f"{name}.pem").write_bytes(certificate)
        (directory / f"{name}.key").write_bytes(key)
        (directory / f"{name}.pem").chmod(0o644)
        (directory / f"{name}.key").chmod(0o600)
    return directory / "mailserver.toml"


def said_of(path: Path) -> list[str]:
    reading = read(path)
    problems = list(reading.problems)
    if reading.config is not None:
        problems = reading.with_problems([*validation.check(reading.config), *uidl.check(reading.config)])
    directory = str(path.parent)
    return [str(problem).removeprefix(f"{directory}/").replace(directory, "DIR") for problem in problems]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_config(case: Path, tmp_path: Path) -> None:
    path = copy_of(case, tmp_path)
    expected = (case / "expected").read_text(encoding="utf-8").splitlines()
    assert sorted(said_of(path)) == sorted(expected)
    assert "hunter2" not in "".join(said_of(path))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_config_comes_of_it(case: Path, tmp_path: Path) -> None:
    """`load` gives nothing that could be served, unless the mistake is in a file that it does not open."""
    config, problems = load(copy_of(case, tmp_path))
    assert (config is None) == any(not problem.warning for problem in problems)


def test_there_are_enough() -> None:
    assert len(CASES) >= 25
    assert any(len((case / "expected").read_text(encoding="utf-8").splitlines()) >= 10 for case in CASES)
