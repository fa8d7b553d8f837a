"""`add_domain`: one more table, and everything else as it was."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailserver.config.edit import EditRefused, add_domain
from mailserver.config.load import load
from tests.config.test_load import SOUND

COMMENTED = b"# ours\n" + SOUND + b"\n# the end, without a line break"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mailserver.toml"
    path.write_bytes(COMMENTED)
    path.chmod(0o640)
    return path


def add(path: Path, name: str = "example.net", hosts: tuple[str, ...] = ("mail.example.net",)) -> None:
    add_domain(path, name, hosts, Path('/c/"odd" name.pem'), Path("/c/k.key"))


def test_domain_is_there_and_the_rest_is_untouched(file: Path) -> None:
    add(file)
    assert file.read_bytes().startswith(COMMENTED + b"\n\n")
    config, problems = load(file)
    assert problems == []
    assert config is not None
    added = config.domains[1]
    assert (added.name, added.hosts) == ("example.net", ("mail.example.net",))
    assert (added.certificate, added.key) == (Path('/c/"odd" name.pem'), Path("/c/k.key"))
    assert len(config.listeners) == 3


def test_mode_stays_and_nothing_else_is_left(file: Path) -> None:
    add(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["mailserver.toml"]


def test_owner_stays(file: Path) -> None:
    # Only root can give files away; anybody else's stay theirs.
    owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    add(file)
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*owner, 0o640)


def test_a_symbolic_link_stays_one(file: Path) -> None:
    link = file.parent / "link.toml"
    link.symlink_to("mailserver.toml")
    add(link)
    assert link.is_symlink()
    assert b"example.net" in file.read_bytes()


@pytest.mark.parametrize(
    ("name", "hosts", "told"),
    [
        ("example.org", ("mail.example.net",), "is already the name of [domain 1]"),
        ("example.net", ("mail.example.org",), "is already a host of [domain 1]"),
        ("example net", ("mail.example.net",), "must be a host name"),
        ("example.net", (), "needs at least one host name"),
    ],
)
def test_refused_leaves_the_file(file: Path, name: str, hosts: tuple[str, ...], told: str) -> None:
    with pytest.raises(EditRefused) as caught:
        add(file, name, hosts)
    assert len(caught.value.problems) == 1
    assert told in caught.value.problems[0].reason
    assert file.read_bytes() == COMMENTED
    assert [path.name for path in file.parent.iterdir()] == ["mailserver.toml"]


def test_older_problems_do_not_hinder(file: Path) -> None:
    file.write_bytes(SOUND.replace(b"failure_delay", b"failure_dalay"))
    add(file)
    assert b"example.net" in file.read_bytes()


@pytest.mark.parametrize("text", [b"[server\n", b"domain = []\n" + SOUND[: SOUND.index(b"[[domain]]")]])
def test_a_file_that_cannot_take_a_table_is_refused(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    with pytest.raises(EditRefused, match="is not TOML"):
        add(file)
    assert file.read_bytes() == text


def test_first_domain(file: Path) -> None:
    file.write_bytes(SOUND[: SOUND.index(b"[[domain]]")] + SOUND[SOUND.index(b"[[listener]]") :])
    add(file)
    config, _problems = load(file)
    assert config is not None
    assert [domain.name for domain in config.domains] == ["example.net"]


def test_many_at_the_same_time_lose_none(file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mailserver.config.edit import add_domain\n"
        "for n in range(4): name = f'd{sys.argv[2]}-{n}.example'; "
        "add_domain(Path(sys.argv[1]), name, [name], Path('/c'), Path('/k'))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(file), str(number)]) for number in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    config, problems = load(file)
    assert problems == []
    assert config is not None
    assert len(config.domains) == 1 + 16


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        add(tmp_path / "missing.toml")
