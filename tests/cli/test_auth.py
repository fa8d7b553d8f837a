"""`mailserver auth`, in processes of its own: it runs the reactor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import run_process

PROMISES = {
    "IAuthBackend": "it has the methods of the interfaces that it provides",
    "find_user": "it finds an existing user, under the requested name",
    "no user": "it finds no user for unknown names",
    "verify_password": "it accepts the right password",
    "no other password": "it accepts no other password",
    "no stranger": "it accepts no password for a user that does not exist any more",
    "IHashedPasswords": "the service can check its stored passwords",
    "IScramKeys": "its SCRAM keys belong to the right password",
    "ITrustsCertificates": "it decides correctly on logins by certificate",
    "IReloadable": "it can reload its data",
    "IAddresses": "it knows addresses, and none that nobody has",
    "IAppPasswords": "it finds app passwords at once, and none that nobody has",
    "IBlocking": "it does not block the server, or says that it does",
    "places": "it answers as many calls at once as it has places",
    "passwords": "it verifies as many passwords at once as it has places",
    "addresses": "it looks up as many addresses at once as it has places",
    "time limit": "a call that is given up at its time limit harms no other",
    "late": "an answer that comes too late is not that to another call",
    "lost": "it answers the call that is tried after lost ones",
    "exceptions": "an exception concerns its own call alone",
    "cache": "a right password stays right, as `cache` supposes",
    "domains": "it knows the domains that `domains` gives it, and no user in others",
}
"""The trials in the order of the command's lines, each by what it is about: an interface where a back end may lack it."""


def lines_of(*not_offered: str) -> list[str]:
    """What the command prints for a back end that keeps the contract and lacks these interfaces."""
    return [
        f"        {promise}: not offered" if about in not_offered else f"ok      {promise}"
        for about, promise in PROMISES.items()
    ]


def run(*words: str, password: str = "secret", path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`path`: where further modules and plugins are."""
    extra = {} if path is None else {"PYTHONPATH": os.pathsep.join([str(path), *sys.path])}
    return run_process("auth", *words, text=f"{password}\n", extra=extra)


def test_list_names_ours_and_what_the_configuration_names(tmp_path: Path) -> None:
    lines = run("list", "--config", str(tmp_path / "none")).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["BACKEND", "directory", "file", "memory", "strcred", "virtual"]
    assert [line.split()[-1] for line in lines[1:]] == ["-"] * 5
    config = tmp_path / "mailserver.toml"
    config.write_text(
        '[server]\nhostname = "mail.example.test"\nuser = "root"\n[mail]\nroot = "mail"\n'
        '[auth]\nbackends = ["memory:anna=secret", "file:users"]\n'
        '[[domain]]\nname = "example.test"\nhosts = ["mail.example.test"]\n'
        '[[listener]]\nprotocol = "imap"\naddresses = ["127.0.0.1"]\n'
    )
    told = run("list", "--config", str(config)).stdout
    assert {line.split()[0]: line.split()[-1] for line in told.splitlines()[1:]} == {
        "directory": "-",
        "file": "yes",
        "memory": "yes",
        "strcred": "-",
        "virtual": "-",
    }
    assert "secret" not in told


def test_conformance_of_ours(tmp_path: Path) -> None:
    # doveadm pw -s SSHA -p secret
    (tmp_path / "users").write_text("Anna@example.test:{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU\n")
    done = run("conformance", f"file:{tmp_path}/users", "anna@example.test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == lines_of(
        "IAddresses", "IAppPasswords", "passwords", "addresses", "cache", "domains"
    )
    (tmp_path / "passwords").write_text("anna:secret\n")
    assert run("conformance", f"strcred:file:{tmp_path}/passwords", "anna").returncode == 0


def test_a_wrong_password_is_a_fault_and_is_not_printed(tmp_path: Path) -> None:
    done = run("conformance", "memory:anna=secret", "anna", password="hunter2")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_what_is_not_there() -> None:
    done = run("conformance", "fiel:/x", "anna")
    assert done.returncode == 1
    assert "known: directory, file" in done.stderr
    assert run("conformance", "memory:anna=secret", "a b").returncode == 1


HANGING = """
import time
from twisted.internet.defer import Deferred
from zope.interface import implementer
from mailserver.auth.interfaces import IAuthBackend

@implementer(IAuthBackend)
class Hanging:
    def __init__(self, how):
        self.how = how
    def find_user(self, name):
        return time.sleep(600) if self.how == "blocks" else Deferred()
    def verify_password(self, user, password):
        return False

def make_backend(argument, hasher):
    return Hanging(argument)
"""


@pytest.mark.parametrize("how", ["blocks", "later"])
def test_a_back_end_that_never_answers_ends_the_trial(tmp_path: Path, how: str) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    text = 'from mailserver.auth.plugins import AuthBackendMaker\nhang = AuthBackendMaker("hang", "hanging", "how")\n'
    (plugins / "hanging_plugin.py").write_text(text)
    done = run("conformance", f"hang:{how}", "anna", path=tmp_path)
    assert done.returncode == 1
    ok, failed = done.stdout.splitlines()
    assert ok.startswith("ok")
    assert "FAILED" in failed
    assert "did not answer within 5 s" in failed


def test_what_is_not_offered_is_said() -> None:
    done = run("conformance", "memory:anna=secret", "anna")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == lines_of(
        "IHashedPasswords",
        "IScramKeys",
        "ITrustsCertificates",
        "IReloadable",
        "IAddresses",
        "IAppPasswords",
        "addresses",
        "cache",
        "domains",
    )


LATER = """
from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface import implementer
from mailserver.auth.interfaces import IAuthBackend, User

@implementer(IAuthBackend)
class Later:
    asked = None
    def __init__(self, how):
        self.how = how
    def find_user(self, name):
        self.asked = name
        return deferLater(reactor, 0.01, self._user, name)
    def _user(self, name):
        if self.how == "mixes":
            name = self.asked
        return User(name) if name == "anna@example.test" else None
    async def verify_password(self, user, password):
        await deferLater(reactor, 0.01, lambda: None)
        return user.name == "anna@example.test" and password.reveal() == b"secret"

def make_backend(argument, hasher):
    return Later(argument)
"""


@pytest.mark.parametrize("how", ["right", "mixes"])
def test_a_back_end_that_answers_by_deferreds(tmp_path: Path, how: str) -> None:
    (tmp_path / "later.py").write_text(LATER)
    plugins = tmp_path / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    text = 'from mailserver.auth.plugins import AuthBackendMaker\nlater = AuthBackendMaker("later", "later", "how")\n'
    (plugins / "later_plugin.py").write_text(text)
    settings = ("--domain", "Example.test", "--cache", "60", "--calls", "4")
    done = run("conformance", f"later:{how}", "anna@example.test", *settings, path=tmp_path)
    assert done.stderr.replace("password: ", "") == ""
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    places = "FAILED  it answers as many calls at once as it has places: of 4 calls at once 2 have the wrong answer"
    assert failed[:1] == ([] if how == "right" else [places])
    assert done.returncode == bool(failed)
    assert done.stdout.count("not offered") == 7
