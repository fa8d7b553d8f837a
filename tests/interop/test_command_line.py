"""openssl s_client, curl and swaks: certificates by name, reading, sending, and refusing the wrong authority."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Interop

PORTS = {
    "imap": ("imaps", "imap"),
    "pop3": ("pop3s", "pop3"),
    "smtp": ("submissions", "submission"),
}


def port(interop: Interop, protocol: str, kind: str) -> int:
    return interop.server.port(PORTS[protocol][0 if kind == "implicit" else 1])


@pytest.mark.parametrize("protocol", PORTS)
def test_openssl_sees_each_domains_own_certificate(
    interop: Interop, domain: str, address: str, kind: str, protocol: str
) -> None:
    where = f"[{address}]" if ":" in address else address
    command = ["openssl", "s_client", "-connect", f"{where}:{port(interop, protocol, kind)}", "-brief"]
    command += ["-servername", interop.host(domain), "-verify_hostname", interop.host(domain), "-verify_return_error"]
    if kind == "starttls":
        command += ["-starttls", protocol]
    seen = interop.run(*command, "-CAfile", str(interop.server.ca), data="")
    assert "Verification: OK" in seen.stderr
    assert "TLSv1.3" in seen.stderr
    refused = interop.run(*command, "-CAfile", str(interop.wrong_ca), data="", check=False)
    assert refused.returncode != 0


def test_openssl_without_a_name_sees_the_default(interop: Interop) -> None:
    where = f"127.0.0.1:{interop.server.port('imaps')}"
    command = ["openssl", "s_client", "-connect", where, "-noservername", "-brief", "-CAfile", str(interop.server.ca)]
    assert "CN=mail.example.test" in interop.run(*command, data="").stderr.replace("CN = ", "CN=")


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(interop: Interop, version: str) -> None:
    where = f"127.0.0.1:{interop.server.port('imaps')}"
    done = interop.run(
        "openssl", "s_client", "-connect", where, version, "-cipher", "ALL:@SECLEVEL=0", data="", check=False
    )
    assert done.returncode != 0
    assert "protocol version" in done.stderr or "no protocols" in done.stderr


def curl(interop: Interop, scheme: str, kind: str, domain: str, address: str, ca: str, *more: str) -> list[str]:
    user, password = interop.server.user_of(domain)
    protocol = "smtp" if scheme == "smtp" else scheme
    number = port(interop, protocol, kind)
    secure = f"{scheme}s" if kind == "implicit" else scheme
    where = f"[{address}]" if ":" in address else address
    command = ["curl", "-sS", "--cacert", ca, "--ssl-reqd", "--resolve", f"{interop.host(domain)}:{number}:{where}"]
    return [*command, "--user", f"{user}:{password}", *more, f"{secure}://{interop.host(domain)}:{number}"]


def test_curl_reads_by_imap_and_pop3(interop: Interop, domain: str, address: str, kind: str) -> None:
    for scheme, path in (("imap", "/INBOX;MAILINDEX=1"), ("pop3", "/1")):
        command = curl(interop, scheme, kind, domain, address, str(interop.server.ca))
        command[-1] += path
        assert "Subject: " in interop.run(*command).stdout
        command = curl(interop, scheme, kind, domain, address, str(interop.wrong_ca))
        assert interop.run(*command, check=False).returncode == 60  # curl: peer certificate cannot be authenticated


def test_curl_sends(interop: Interop, domain: str, address: str, kind: str) -> None:
    user, _ = interop.server.user_of(domain)
    message = interop.work / "message.eml"
    message.write_text(f"From: {user}\r\nTo: {user}\r\nSubject: by curl {kind} {address}\r\n\r\nhello\r\n")
    more = ["--mail-from", user, "--mail-rcpt", user, "--upload-file", str(message)]
    interop.run(*curl(interop, "smtp", kind, domain, address, str(interop.server.ca), *more))
    listing = curl(
        interop, "imap", "implicit", domain, address, str(interop.server.ca), "-X", f'SEARCH SUBJECT "by curl {kind}"'
    )
    listing[-1] += "/INBOX"
    assert interop.run(*listing).stdout.split()[2:]
    assert (
        interop.run(*curl(interop, "smtp", kind, domain, address, str(interop.wrong_ca), *more), check=False).returncode
        == 60
    )


def test_swaks_sends_and_refuses_the_wrong_authority(interop: Interop, domain: str, address: str, kind: str) -> None:
    user, password = interop.server.user_of(domain)
    command = [
        "swaks",
        "--server",
        address,
        "--port",
        str(port(interop, "smtp", kind)),
        "--tls-sni",
        interop.host(domain),
    ]
    command += ["--tls-on-connect" if kind == "implicit" else "--tls", "--tls-verify"]
    command += ["--tls-verify-target", interop.host(domain), "--auth", "PLAIN", "--auth-user", user]
    command += ["--auth-password", password, "--from", user, "--to", user]
    done = interop.run(*command, "--tls-ca-path", str(interop.server.ca))
    assert "250 2.0.0" in done.stdout
    assert interop.run(*command, "--tls-ca-path", str(interop.wrong_ca), check=False).returncode != 0


def test_swaks_delivers_by_lmtp(interop: Interop, domain: str, address: str) -> None:
    user, _ = interop.server.user_of(domain)
    command = ["swaks", "--server", address, "--port", str(interop.server.port("lmtp")), "--protocol", "LMTP"]
    command += ["--from", "someone@example.net", "--to", user]
    assert "250 2.0.0" in interop.run(*command).stdout or "250 2.1.5" in interop.run(*command).stdout
