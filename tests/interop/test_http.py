"""curl against the demonstration: every page, by the name and certificate that it has."""

from __future__ import annotations

import plistlib
import subprocess
from pathlib import Path

import pytest

from tests.interop.conftest import Interop

HTTPS, HTTP, METRICS = "https", "http", "metrics"
OUTLOOK = Path(__file__).parent.parent / "http" / "outlook-request.xml"


def curl(interop: Interop, host: str, path: str, *words: str, at: str = HTTPS, check: bool = True) -> bytes:
    """What it prints; it comes to loopback whatever the host."""
    interop.need("curl")
    port = interop.server.port(at)
    command = ["curl", "-sS", "--max-time", "30", "--cacert", str(interop.server.ca)]
    command += ["--resolve", f"{host}:{port}:127.0.0.1", *words]
    scheme = "https" if at == HTTPS else "http"
    done = subprocess.run([*command, f"{scheme}://{host}:{port}{path}"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 or not check, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("domain", ["example.test", "example.org"])
def test_pages_of_each_domain_under_their_own_certificates(interop: Interop, domain: str) -> None:
    config = curl(interop, f"autoconfig.{domain}", f"/mail/config-v1.1.xml?emailaddress=anna@{domain}")
    assert f"<hostname>mail.{domain}</hostname>".encode() in config
    assert f"<port>{interop.server.port('imaps')}</port>".encode() in config
    posted = curl(
        interop,
        f"autodiscover.{domain}",
        "/Autodiscover/Autodiscover.xml",
        "--data-binary",
        f"@{OUTLOOK}",
        "--header",
        "Content-Type: text/xml",
    )
    assert b"<Server>mail.example.test</Server>" in posted
    policy = curl(interop, f"mta-sts.{domain}", "/.well-known/mta-sts.txt")
    assert policy.startswith(b"version: STSv1\r\nmode: testing\r\nmx: mail.")


def test_a_profile_that_openssl_verifies(interop: Interop, tmp_path: Path) -> None:
    path = "/profile.mobileconfig?emailaddress=anna@example.org"
    (tmp_path / "signed").write_bytes(curl(interop, "mail.example.org", path))
    command = ["openssl", "cms", "-verify", "-inform", "DER", "-in", "signed", "-CAfile", str(interop.server.ca)]
    done = subprocess.run(
        [*command, "-purpose", "any", "-binary"], cwd=tmp_path, capture_output=True, timeout=60, check=True
    )
    [account] = plistlib.loads(done.stdout)["PayloadContent"]
    assert account["IncomingMailServerPortNumber"] == interop.server.port("imaps")


def test_head_redirect_keep_alive_and_refusals(interop: Interop) -> None:
    head = curl(interop, "autoconfig.example.test", "/mail/config-v1.1.xml", "--head")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Length: " in head
    location = "%{http_code} %{redirect_url} %{num_connects}\n"
    moved = curl(
        interop, "mail.example.test", "/autodiscover/autodiscover.xml", "-w", location, "-o", "/dev/null", at=HTTP
    )
    assert moved.startswith(b"302 https://mail.example.test:")
    port = interop.server.port(METRICS)
    twice = curl(
        interop, "127.0.0.1", "/metrics", "-w", "%{num_connects}\n", f"http://127.0.0.1:{port}/health", at=METRICS
    )
    assert b"mailserver_sessions{" in twice
    assert twice.endswith(b"\n0\n"), "the second request needs no new connection"
    for words, status in (
        (("--path-as-is",), b"404"),
        (("--header", "Host: elsewhere.example.com"), b"421"),
        (("--request", "DELETE"), b"404"),
        (("--header", "X: " + "a" * 40_000), b"431"),
        (("--data", "x" * 100_000), b"413"),
        (("--http2-prior-knowledge",), b"000"),
    ):
        got = curl(
            interop,
            "mail.example.test",
            "/../../etc/passwd",
            *words,
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            check=False,
        )
        assert got == status, words


def test_no_certificate_of_another_name(interop: Interop) -> None:
    """A name that nobody has is shown the default certificate, which does not fit."""
    assert curl(interop, "autoconfig.example.net", "/mail/config-v1.1.xml", check=False) == b""
