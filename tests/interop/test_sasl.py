"""Logins that send no password, by GNU SASL against ours, and by our test's client against Dovecot with our users file."""

from __future__ import annotations

import imaplib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from scramp import ScramClient

from mailserver.auth import schemes
from mailserver.auth.scram_fields import make_fields, replace_fields
from tests import dovecot
from tests.interop.conftest import Interop
from tests.server import Server


@pytest.fixture(scope="module")
def bound(interop: Interop) -> Iterator[Interop]:
    """With a server of its own, which offers -PLUS."""
    plus = '[auth]\nmechanisms = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]\n'
    with Server(interop.work / "sasl", edit={"[auth]\n": plus}) as server:
        yield evolve(interop, server=server)


def gsasl(interop: Interop, protocol: str, mechanism: str, user: str, password: str, *more: str) -> str:
    """What it says, and what the server answered, of a login after STARTTLS."""
    done = interop.run(
        "gsasl",
        {"imap": "--imap", "submission": "--smtp"}[protocol],
        "--verbose",
        f"--connect=mail.example.test:{interop.server.port(protocol)}",
        f"--x509-ca-file={interop.server.ca}",
        f"--mechanism={mechanism}",
        f"--authentication-id={user}",
        f"--password={password}",
        *more,
        data="",
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("protocol", ["imap", "submission"])
@pytest.mark.parametrize(("mechanism", "more"), [("SCRAM-SHA-256-PLUS", []), ("SCRAM-SHA-256", ["--no-cb"])])
def test_gsasl(bound: Interop, protocol: str, mechanism: str, more: list[str]) -> None:
    user, password = bound.server.user_of("example.test")
    before = len(bound.server.log)
    said = gsasl(bound, protocol, mechanism, user, password, *more)
    assert "authentication finished (server trusted)" in said.lower(), said
    bound.server.wait_for(rf"login session=.* user={user} method={mechanism}\n", since=before)
    said = gsasl(bound, protocol, mechanism, user, "wrong", *more)
    assert "server trusted" not in said
    bound.server.wait_for(rf"login-failed session=.* method={mechanism} ", since=before)


@pytest.fixture
def there() -> Iterator[dovecot.Dovecot]:
    if not dovecot.available():
        assert not os.environ.get("CI"), "CI has a Dovecot"
        pytest.skip("needs root and Debian's dovecot-imapd")
    # Not below pytest's directory: that is root's alone, and Dovecot reads its users as another.
    with tempfile.TemporaryDirectory(prefix="mailserver-sasl-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        root = directory / "mail"
        root.mkdir()
        one = dovecot.Dovecot(directory / "dovecot", root, {}, protocols="imap")
        one.own(root)
        mechanisms = "plain login scram-sha-256 scram-sha-1"
        one.config.write_text(one.config.read_text().replace("= plain login", f"= {mechanisms}"))
        yield one


def scram(client: imaplib.IMAP4, user: str, password: str, mechanism: str) -> str:
    """The answer of a login by SCRAM, in which the server has proved itself."""
    proof: Any = ScramClient([mechanism], user, password)
    steps = [
        lambda _said: proof.get_client_first(),
        lambda said: (proof.set_server_first(said), proof.get_client_final())[1],
        lambda said: (proof.set_server_final(said), "")[1],
    ]
    try:
        return client.authenticate(mechanism, lambda said: steps.pop(0)(said.decode()).encode())[0]
    except imaplib.IMAP4.error:
        return "NO"


def test_dovecot_reads_our_users(there: dovecot.Dovecot) -> None:
    """The keys beside a password do not disturb it; those of its own scheme let users in there, too."""
    beside = schemes.make(b"secret")
    fields = replace_fields("userdb_quota=1G", make_fields(beside, b"secret", ["SHA-256", "SHA-1"]))
    keyed = schemes.make(b"secret", "SCRAM-SHA-256")
    users = f"anna@example.test:{beside}::::::{fields}\nben@example.test:{keyed}::::::\n"
    (there.dir / "users").write_text(users)
    with there:
        for user in ("anna@example.test", "ben@example.test"):
            client = imaplib.IMAP4("127.0.0.1", there.ports["imap"])
            assert client.login(user, "secret")[0] == "OK", there.log
            client.logout()
        client = imaplib.IMAP4("127.0.0.1", there.ports["imap"])
        assert scram(client, "ben@example.test", "secret", "SCRAM-SHA-256") == "OK", there.log
        client.logout()
        assert (
            scram(imaplib.IMAP4("127.0.0.1", there.ports["imap"]), "ben@example.test", "wrong", "SCRAM-SHA-256") == "NO"
        )
    assert "Error" not in there.log, there.log


def test_entries_of_doveadm_are_ours(there: dovecot.Dovecot) -> None:
    for scheme in ("SCRAM-SHA-256", "SCRAM-SHA-1"):
        stored = there.doveadm("pw", "-s", scheme, "-p", "pä ss").decode().strip()
        assert schemes.verify(stored, "pä ss".encode())
        assert not schemes.verify(stored, b"pa ss")
