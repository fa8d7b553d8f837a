"""Signed octets, as OpenSSL reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mailserver.tls.keypair.pair import load_pair
from mailserver.tls.keypair.signature import sign
from tests.tls.site import Site, authority


@pytest.mark.interop
def test_openssl_verifies_it(tmp_path: Path) -> None:
    site = Site(tmp_path).add("mail.example.test", ["mail.example.test"])
    pair = load_pair(site.certificate("mail.example.test"), site.key("mail.example.test"))
    octets = b"<plist>\n\xff</plist>\r\n"
    (tmp_path / "signed").write_bytes(sign(pair, octets))
    (tmp_path / "ca.pem").write_bytes(authority()[0])
    command = [
        "openssl",
        "cms",
        "-verify",
        "-inform",
        "DER",
        "-in",
        "signed",
        "-CAfile",
        "ca.pem",
        "-purpose",
        "any",
        "-binary",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert done.stdout == octets
