"""Keys with a password, from a file or a command that may fail, hang or babble."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mailserver.tls.keypair import key_password
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site

NAME = "mail.example.test"
WORD = "hunter2 \N{EURO SIGN}"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path).add("example.test", [NAME])
    key = serialization.load_pem_private_key(site.key("example.test").read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(WORD.encode())
    site.put(
        "example.test",
        key=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption),
    )
    return site


def command(site: Site, code: str) -> Site:
    site.of_domain["example.test"] = [f"key_password_command = [{sys.executable!r}, '-c', {code!r}]"]
    return site


def told(site: Site) -> list[str]:
    words = [str(problem) for problem in validation.check(site.config())]
    assert "hunter" not in "".join(words)
    return [word.partition("[domain 1] ")[2] for word in words]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nmore\n"])
def test_a_file(site: Site, end: str) -> None:
    path = site.directory / "password"
    path.write_bytes((WORD + end).encode())
    path.chmod(0o600)
    site.of_domain["example.test"] = ['key_password_file = "password"']
    policy = TlsPolicy(site.config(), lambda *_a, **_n: None)
    assert Client().connect(policy, NAME.encode()).names == (NAME,)
    assert "hunter" not in repr(policy.material)


def test_a_command(site: Site) -> None:
    policy = TlsPolicy(command(site, f"print({WORD!r})").config(), lambda *_a, **_n: None)
    assert Client().connect(policy, NAME.encode()).names == (NAME,)


def test_a_key_without_one_needs_none(site: Site) -> None:
    site.renew("example.test")
    assert told(command(site, "print('hunter3')")) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('hunter3')", "cannot be decrypted with its password"),
        ("print()", "key_password_command: holds no password on its first line"),
        ("print('x' * 2000)", "key_password_command: gives more than 1024 octets"),
        ("while True: print('x' * 2000)", "key_password_command: prints more than 4096 octets"),
        (
            "import sys; print('hunter2'); sys.exit(3)",
            "key_password_command: failed, with exit status 3; run it by hand",
        ),
    ],
)
def test_what_goes_wrong(site: Site, code: str, words: str) -> None:
    (line,) = told(command(site, code))
    assert words in line


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(99)", "import os; os.fork() or __import__('time').sleep(99)"]
)
def test_one_that_hangs_is_ended(site: Site, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """With what it has started."""
    monkeypatch.setattr(key_password, "COMMAND_TIME", 0.5)
    begun = time.monotonic()
    assert told(command(site, code)) == ["key_password_command: does not end within 0.5 seconds"]
    assert time.monotonic() - begun < 20


def test_one_that_is_not_there(site: Site) -> None:
    site.of_domain["example.test"] = ['key_password_command = ["/nowhere/program"]']
    assert told(site) == ["key_password_command: cannot be run: No such file or directory"]


def test_a_password_file_that_all_can_read(site: Site) -> None:
    (site.directory / "password").write_text(WORD)
    (site.directory / "password").chmod(0o644)
    site.of_domain["example.test"] = ['key_password_file = "password"']
    (line,) = told(site)
    assert "key_password_file" in line
    assert "warning: can be read or changed by every user" in line
