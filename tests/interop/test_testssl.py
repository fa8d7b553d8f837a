"""testssl.sh over every kind of listener, with the preset "modern": nothing at LOW or above."""

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


WHOLE = ("-p", "-s", "-f", "-P", "-U", "-S")
"""Protocols, suites, forward secrecy, the server's order, vulnerabilities, the certificate."""
MOST = ("-p", "-s", "-U")
SHORT = ("-p", "-s")

LISTENERS: list[tuple[str, str | None, tuple[str, ...]]] = [
    ("imaps", None, WHOLE),
    ("imap", "imap", MOST),
    ("pop3s", None, SHORT),
    ("pop3", "pop3", SHORT),
    ("submissions", None, SHORT),
    ("submission", "smtp", SHORT),
    ("lmtp", "lmtp", SHORT),
    ("https", None, SHORT),
]
"""All share one TLS; what is the listener's own is asked of each."""


@pytest.mark.slow
@pytest.mark.timeout(2 * HANG)
def test_no_finding(interop: Interop, tmp_path: Path) -> None:
    interop.need("testssl")
    interop.need("socat")
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda each: findings(interop, tmp_path, *each), LISTENERS))
    assert [line for lines in found for line in lines] == []


def findings(
    interop: Interop, directory: Path, protocol: str, starttls: str | None, parts: tuple[str, ...]
) -> list[str]:
    """What it finds on a listener that it should not."""
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
