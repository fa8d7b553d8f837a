"""OpenSSL's own client resumes a session under its own name alone, at any worker and any port."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import no_bug
from tests.server import Server

OTHER_DEFAULT = """
[[listener]]
protocol = "submissions"
port = {a}
addresses = ["127.0.0.1"]
default = "mail.example.org"
"""
TEST, ORG = ["-servername", "mail.example.test"], ["-servername", "mail.example.org"]
STARTTLS = {"imap": ["-starttls", "imap"], "submission": ["-starttls", "smtp"], "pop3": ["-starttls", "pop3"]}


@pytest.fixture(scope="module", params=[1, 2], ids=["one-worker", "two-workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("resumption"), append=OTHER_DEFAULT, workers=request.param) as server:
        yield server
    no_bug(server.log)


def shake_hands(server: Server, protocol: str, version: str, *words: str) -> tuple[bool, str]:
    """Was a session resumed; and the certificate's subject."""
    port = server.spare_ports[0] if protocol == "other" else server.port(protocol)
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", f"-{version}", "-ign_eof", *words]
    leave = b"a LOGOUT\r\n" if protocol.startswith("imap") else b"QUIT\r\n"
    done = subprocess.run(
        [*command, *STARTTLS.get(protocol, [])], check=False, input=leave, capture_output=True, timeout=60
    )
    output = done.stdout.decode("latin-1")
    assert done.returncode == 0, output + done.stderr.decode("latin-1")
    (begun,) = [line for line in output.splitlines() if line.startswith(("New, TLS", "Reused, TLS"))]
    subject = next(line for line in output.splitlines() if line.startswith("subject="))
    return begun.startswith("Reused"), subject.replace(" ", "")


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
@pytest.mark.parametrize(
    ("first", "asked", "then", "asks", "resumed"),
    [
        ("imaps", TEST, "imaps", TEST, True),
        ("imaps", TEST, "imaps", ORG, False),
        ("imap", TEST, "imap", TEST, True),
        ("imap", TEST, "imap", ORG, False),
        ("imaps", TEST, "submissions", TEST, True),
        ("imaps", ORG, "submission", TEST, False),
        ("imaps", ["-noservername"], "other", ["-noservername"], False),
    ],
)
def test_a_session_is_its_names_alone(
    server: Server,
    tmp_path: Path,
    version: str,
    first: str,
    asked: list[str],
    then: str,
    asks: list[str],
    resumed: bool,
) -> None:
    session = str(tmp_path / "session")
    assert not shake_hands(server, first, version, *asked, "-sess_out", session)[0]
    again = shake_hands(server, then, version, *asks, "-sess_in", session)
    assert again[0] is resumed
    if not resumed:
        assert again == shake_hands(server, then, version, *asks), "the certificate of the name that was asked for"
