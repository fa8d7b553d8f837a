"""The users file beside a real Dovecot: whom `allow_nets` lets in, and which stored passwords are right."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from mailserver.auth.backends.file import FileBackend
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.schemes import schemes
from mailserver.types import Secret
from tests import dovecot
from tests.fakes import run_now

LINES = {
    "none@example.test": "{PLAIN}secret::::::",
    "one@example.test": "{PLAIN}secret::::::allow_nets=192.0.2.1",
    "net@example.test": "{PLAIN}secret::::::allow_nets=192.0.2.0/25,2001:db8::/32",
    "host-bits@example.test": "{PLAIN}secret::::::allow_nets=192.0.2.77/24",
    "local@example.test": "{PLAIN}secret::::::allow_nets=local",
    "nonsense@example.test": "{PLAIN}secret::::::allow_nets=nonsense,198.51.100.0/24",
    "empty@example.test": "{PLAIN}secret::::::allow_nets=",
    "disabled@example.test": "!{PLAIN}secret::::::",
    "yescrypt@example.test": "{CRYPT}$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/$U714.Qb8scG3K4QGg/xKCyJYcAYtgz2YQfZyHILKld1::::::",
    "gost@example.test": "{CRYPT}$gy$j75$k2XAnEHBqQ1Ct2aMXFKNa/$dr/FWzOGaTe8mDiPccu7ICjR1surx5QgF3TwpL4eZC/::::::",
    "broken@example.test": "{ARGON2ID}!::::::",
    "junk@example.test": "hunter2::::::",
}
PEERS = ("192.0.2.1", "192.0.2.200", "198.51.100.7", "2001:db8::1", "2001:db9::1", "::ffff:192.0.2.1", None)


@pytest.fixture(scope="module")
def theirs() -> Iterator[dovecot.Dovecot]:
    dovecot.need()
    with dovecot.away({}, protocols="imap") as server:
        users = server.dir / "users"
        users.write_text("".join(f"{name}:{line}\n" for name, line in LINES.items()))
        with server:
            yield server


def lets_in(theirs: dovecot.Dovecot, name: str, password: str, peer: str | None) -> bool:
    remote = ["-x", f"rip={peer}"] if peer else []
    command = ["doveadm", "-c", str(theirs.config), "auth", "test", "-x", "service=imap", *remote, name, password]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def we_let_in(backend: FileBackend, name: str, password: str, peer: str | None) -> bool:
    user = backend.find_user(name)
    assert user is not None
    try:
        right = run_now(backend.verify_password(user, Secret(password.encode())))
    except schemes.BadHash:
        right = False
    return right and user.limits.allows(ip_address(peer) if peer else None)


@pytest.mark.parametrize("name", LINES)
def test_whom_it_lets_in(theirs: dovecot.Dovecot, name: str) -> None:
    backend = FileBackend(theirs.dir / "users", DirectHasher())
    password = "Hello world!" if LINES[name].startswith("{CRYPT}") else "secret"
    for peer in PEERS if "allow_nets" in LINES[name] else PEERS[:1]:
        assert we_let_in(backend, name, password, peer) == lets_in(theirs, name, password, peer), peer
    assert not we_let_in(backend, name, "wrong", PEERS[0])
