"""testssl.sh over every kind of listener, with the preset "modern": nothing at LOW or above.

All listeners have the same TLS contexts. `make interop` looks at one with implicit TLS in full, and at the versions of TLS
behind one STARTTLS; openssl tries the versions behind the others. `make soak` looks at every listener in full.
"""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.interop.conftest import Interop

HANG = 900
"""Seconds."""

SEVERE = {"LOW", "MEDIUM", "HIGH", "CRITICAL"}

PRIVATE_CA = {
    # An authority of one's own has no responder and no place for its lists that a stranger could ask.
    "cert_revocation": "Neither CRL nor OCSP URI provided",
}
"""Findings about the certificate that are due to the private authority, and their words."""


WHOLE = os.environ.get("MAILSERVER_TESTSSL") == "whole"
PARTS = ("-p", "-s", "-f", "-U", "-P", "-S")
"""Protocols, suites, forward secrecy, vulnerabilities, the server's order, the certificate."""

LISTENERS = {
    "imaps": None,
    "imap": "imap",
    "pop3s": None,
    "pop3": "pop3",
    "submissions": None,
    "submission": "smtp",
    "lmtp": "lmtp",
    "https": None,
}
"""And what testssl.sh calls its way of STARTTLS."""


@pytest.mark.slow
@pytest.mark.timeout(2 * HANG)
def test_no_finding(interop: Interop, tmp_path: Path) -> None:
    interop.need("testssl")
    interop.need("socat")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        chosen = [each for each, starttls in LISTENERS.items() if WHOLE or each in ("imaps", "imap")]
        found = list(pool.map(lambda each: findings(interop, tmp_path, each), chosen))
    assert [line for lines in found for line in lines] == []


@pytest.mark.parametrize("protocol", [each for each, starttls in LISTENERS.items() if starttls])
def test_behind_starttls_are_no_old_versions(interop: Interop, protocol: str) -> None:
    def connect(version: str) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{interop.server.port(protocol)}", version]
        command += ["-starttls", str(LISTENERS[protocol]), "-name", "mail.example.test", "-cipher", "ALL:@SECLEVEL=0"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    assert "New, TLSv1.3" in connect("-tls1_3")
    for old in ("-tls1", "-tls1_1"):
        assert "alert protocol version" in connect(old)


def findings(interop: Interop, directory: Path, protocol: str) -> list[str]:
    """What it finds on a listener that it should not."""
    starttls = LISTENERS[protocol]
    parts = PARTS if WHOLE or starttls is None else PARTS[:1]
    out = directory / f"{protocol}.json"
    command = ["testssl", "--add-ca", str(interop.server.ca), "--quiet", "--color", "0", "--warnings", "off"]
    command += ["--nodns", "none", "--ip", "127.0.0.1", "--connect-timeout", "20", "--openssl-timeout", "20"]
    command += [*parts, *(("--starttls", starttls) if starttls else ())]
    command += ["--jsonfile", str(out), f"mail.example.test:{interop.server.port(protocol)}"]
    subprocess.run(command, capture_output=True, timeout=HANG, check=False)  # its status is a number of findings
    told = json.loads(out.read_text())
    assert any(each["id"] == "TLS1_3" and each["severity"] == "OK" for each in told), "it has not got through"
    return [
        f"{protocol}: {each['id']}: {each['severity']}: {each['finding']}"
        for each in told
        if each["severity"] in SEVERE and PRIVATE_CA.get(each["id"]) != each["finding"]
    ]
