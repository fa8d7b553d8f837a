"""`mailserver auth test`: the result of the server's own check, and each restriction."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.command import run_process

USERS = """\
anna@example.test:{PLAIN}secret
away@example.test:{PLAIN}secret::::::allow_nets=192.0.2.0/24
off@example.test:!{PLAIN}secret
weak@example.test:{MD5-CRYPT}$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1
carl@example.org:{PLAIN}secret
both@example.org:!{PLAIN}secret::::::allow_nets=192.0.2.0/24
"""
CONFIG = """\
[server]
hostname = "mail.example.test"
user = "root"
runtime_dir = "run"
[mail]
root = "mail"
[auth]
backends = ["file:{users}"]
default_domain = "example.test"
[[domain]]
name = "example.test"
hosts = ["mail.example.test"]
[[domain]]
name = "example.org"
hosts = ["mail.example.org", "*.example.org"]
client_certificates = "required"
client_ca = "ca.pem"
[[listener]]
protocol = "imap"
addresses = ["127.0.0.1"]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trial")
    (directory / "users").write_text(USERS)
    path = directory / "mailserver.toml"
    path.write_text(CONFIG.format(users=directory / "users"))
    return path


def run(config: Path, *words: str, password: str = "secret") -> subprocess.CompletedProcess[str]:
    return run_process("auth", "test", *words, "--config", str(config), text=f"{password}\n")


def tried(config: Path, *words: str, password: str = "secret") -> dict[str, object]:
    done = run(config, *words, "--json", password=password)
    found = json.loads(done.stdout)
    assert done.returncode == found["refused"], done.stderr
    assert password not in done.stdout
    assert isinstance(found, dict)
    return found


def test_a_right_password_and_a_wrong_one(config: Path) -> None:
    done = run(config, "anna", "--name", "mail.example.test", "--from", "198.51.100.1")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "It is the account anna@example.test." in lines
    assert lines[-1] == "The login would succeed."
    wrong = tried(config, "anna", password="geheim")
    assert (wrong["rule"], wrong["restrictions"]) == ("wrong password", [])
    assert tried(config, "nobody", password="geheim")["rule"] == "unknown user"
    assert tried(config, "no one", password="geheim")["rule"] == "bad name"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("away@example.test", "--from", "198.51.100.1"), "network"),
        (("away@example.test",), "network"),
        (("off@example.test",), "disabled"),
        (("weak@example.test",), "weak scheme"),
        (("carl@example.org",), "certificate"),
        (("carl", "--name", "imap.example.org"), "certificate"),
        (("nobody@example.test",), "unknown user"),
    ],
)
def test_each_restriction_with_and_without_the_password(config: Path, words: tuple[str, ...], rule: str) -> None:
    for more in ((), ("--no-password",)):
        found = tried(config, *words, *more)
        assert found["rule"] == rule
        assert str(found["story"][-1]).startswith("What to do: ")  # type: ignore[index]


def test_all_restrictions_are_listed(config: Path) -> None:
    for more, password in (((), "secret"), ((), "wrong-1"), (("--no-password",), "secret")):
        found = tried(config, "both@example.org", "--from", "198.51.100.1", *more, password=password)
        assert [str(each).partition(" ")[0] for each in found["restrictions"]] == [  # type: ignore[attr-defined]
            "both@example.org",
            "both@example.org",
            "the",
        ]


def test_without_the_password_all_else_may_be_right(config: Path) -> None:
    assert tried(config, "away@example.test", "--from", "192.0.2.9", "--no-password")["rule"] is None
    assert tried(config, "away@example.test", "--from", "192.0.2.9")["refused"] is False


def test_what_is_not_an_address_or_a_host(config: Path) -> None:
    done = run(config, "anna", "--from", "here")
    assert done.returncode == 2
    assert "--from" in done.stderr
    assert "none of the configuration" in run(config, "anna", "--name", "elsewhere.test").stdout


def test_nothing_is_recorded(config: Path) -> None:
    run(config, "anna", password="geheim")
    assert not (config.parent / "run").exists()
