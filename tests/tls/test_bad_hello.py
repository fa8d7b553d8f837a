"""ClientHellos that no good client sends: each is served or gets its alert, and costs nothing of the next one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from OpenSSL import SSL

from mailserver.tls.context.handshake import failure_reason
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site, client_hello, quiet
from tests.tls.test_wire import s_client, serving

NAME = b"mail.example.test"
HELLO = client_hello(NAME)
HANDSHAKE, ALERT = 22, 21
"""RFC 8446 5.1: types of records."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path).add("example.test", [NAME.decode()])


@pytest.fixture
def policy(site: Site) -> TlsPolicy:
    return TlsPolicy(site.config(), quiet)


def fed(policy: TlsPolicy, pieces: list[bytes]) -> tuple[bytes, str]:
    """What the server answers, and why it has given up, in words for the administrator."""
    connection = policy.serverConnectionForTLS(None)
    connection.set_accept_state()
    why, answer = "", b""
    for piece in pieces:
        connection.bio_write(piece)
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            continue
        except SSL.Error as error:
            why = failure_reason(connection, "; ".join(entry[-1] for entry in error.args[0]))
            break
    with contextlib.suppress(SSL.WantReadError):
        answer = connection.bio_read(1 << 16)
    # Whatever stands in OpenSSL's queue of errors is not the next one's.
    assert Client().connect(policy, NAME).names == (NAME.decode(),)
    return answer, why


def in_records(message: bytes, size: int) -> bytes:
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [HELLO],
        [HELLO[at : at + 1] for at in range(len(HELLO))],
        [in_records(HELLO[5:], 1)],
        [in_records(HELLO[5:], 7)],
    ],
    ids=["whole", "an octet a segment", "an octet a record", "seven octets a record"],
)
def test_pieces_are_put_together(policy: TlsPolicy, pieces: list[bytes]) -> None:
    answer, why = fed(policy, pieces)
    assert (answer[0], why) == (HANDSHAKE, "")


@pytest.mark.parametrize("length", [1, 4, 5, 6, 40, len(HELLO) - 1])
def test_a_truncated_one_is_waited_for(policy: TlsPolicy, length: int) -> None:
    """Until the time for handshakes is over, which `net` holds it to."""
    assert fed(policy, [HELLO[:length]]) == (b"", "")


def with_version(version: bytes) -> bytes:
    return HELLO[:9] + version + HELLO[11:]


@pytest.mark.parametrize(
    ("hello", "alert", "words"),
    [
        # RFC 8446 6: protocol_version(70), handshake_failure(40), illegal_parameter(47), record_overflow(22),
        # unexpected_message(10), decode_error(50); RFC 6066 3: unrecognized_name(112).
        (with_version(b"\3\0"), 70, "TLS version is below minimum_version"),
        (with_version(b"\3\1"), 70, "TLS version is below minimum_version"),
        (with_version(b"\3\2"), 70, "TLS version is below minimum_version"),
        (
            HELLO.replace(bytes.fromhex("0002 c02b 0100"), bytes.fromhex("0002 0005 0100")),
            40,
            "no suite that is served",
        ),
        (b"\x16\3\1\x40\0\1\xff\xff\xff" + bytes(16380), 47, "excessive message size: no mail client"),
        (b"\x16\3\1\xff\xff" + bytes(65535), 22, "data length too long; record layer failure: no mail client"),
        (b"\x16\3\1\0\0" * 40, 10, "record too small; record layer failure: no mail client"),
        (b"\x15\3\1\0\2\2\x30", 10, "unexpected message: no mail client"),
        (HELLO.replace(bytes.fromhex("c02b 0100"), bytes.fromhex("c02b 0001")), 50, "length mismatch: no mail client"),
        (client_hello(b"a" * 256), 112, "bad extension: such as an invalid server name"),
        (client_hello(b"a" * 60000), 112, "bad extension: such as an invalid server name"),
        (client_hello(b"mail.example.test\0.example.net"), 112, "bad extension: such as an invalid server name"),
    ],
    ids=[
        "SSLv3",
        "TLS 1.0",
        "TLS 1.1",
        "no shared suite",
        "a huge message",
        "a huge record",
        "empty",
        "an alert",
        "lengths that do not fit",
        "a long name",
        "a huge name",
        "NUL in the name",
    ],
)
def test_a_bad_one_gets_its_alert(policy: TlsPolicy, hello: bytes, alert: int, words: str) -> None:
    answer, why = fed(policy, [hello])
    assert (answer[0], answer[5], answer[6]) == (ALERT, 2, alert)
    assert words in why


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + bytes(16), "not TLS"),
        (b"GET / HTTP/1.0\r\n\r\n", "a web browser or a scanner"),
        (b"a LOGIN anna secret\r\n", "continued in clear text"),
    ],
    ids=["SSLv2", "HTTP", "IMAP"],
)
def test_what_is_no_tls_gets_nothing(policy: TlsPolicy, octets: bytes, words: str) -> None:
    answer, why = fed(policy, [octets])
    assert answer == b""
    assert words in why


class TestRenegotiation:
    """RFC 5746 5.3, RFC 8446 4.1.2: refused; nothing on a mail port needs it."""

    def test_by_openssl(self, site: Site) -> None:
        command = ["openssl", "s_client", "-tls1_2", "-servername", NAME.decode(), "-connect"]
        with (
            serving(TlsPolicy(site.config(), quiet)) as port,
            subprocess.Popen(
                [*command, f"127.0.0.1:{port}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as process,
        ):
            told, _nothing = process.communicate(b"R\n", timeout=30)
        assert b"RENEGOTIATING" in told
        assert re.search(rb"no renegotiation", told)


@pytest.mark.interop
class TestGnuTls:
    """Another library than ours on both sides."""

    @pytest.fixture(autouse=True)
    def program(self) -> None:
        if shutil.which("gnutls-cli") is None and not os.environ.get("CI"):
            pytest.skip("gnutls-cli is not installed")

    def told(self, port: int, site: Site, *arguments: str, name: str = NAME.decode()) -> str:
        command = ["gnutls-cli", f"--x509cafile={site.directory / 'ca.pem'}", f"--port={port}", *arguments]
        command += [f"--sni-hostname={name}", f"--verify-hostname={name}", "127.0.0.1"]
        done = subprocess.run(
            command, input="", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False
        )
        return done.stdout

    @pytest.fixture
    def site(self, site: Site) -> Site:
        from tests.tls.site import authority

        (site.directory / "ca.pem").write_bytes(authority()[0])
        return site

    @pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
    def test_good(self, site: Site, version: str) -> None:
        with serving(TlsPolicy(site.config(), quiet)) as port:
            told = self.told(port, site, f"--priority=NORMAL:-VERS-ALL:+VERS-{version}")
        assert "The certificate is trusted" in told
        assert f"({version}" in told

    @pytest.mark.parametrize("version", ["TLS1.0", "TLS1.1"])
    def test_old(self, site: Site, version: str) -> None:
        with serving(TlsPolicy(site.config(), quiet)) as port:
            told = self.told(port, site, f"--priority=LEGACY:-VERS-ALL:+VERS-{version}:%VERIFY_ALLOW_SIGN_WITH_SHA1")
        assert "Handshake was completed" not in told
        assert "protocol version" in told.lower() or "fatal" in told.lower()

    def test_required_certificate(self, site: Site) -> None:
        from tests.tls.client_authority import ClientAuthority

        clients = ClientAuthority()
        (site.directory / "clients.pem").write_bytes(clients.pem)
        site.of_domain["example.test"] = ['client_certificates = "required"', 'client_ca = "clients.pem"']
        for name, octets in zip(("own.pem", "own.key"), clients.issue(), strict=True):
            (site.directory / name).write_bytes(octets)
        shown = [f"--x509certfile={site.directory / 'own.pem'}", f"--x509keyfile={site.directory / 'own.key'}"]
        with serving(TlsPolicy(site.config(), quiet)) as port:
            with_it, without = self.told(port, site, *shown), self.told(port, site)
        assert "Simple Client Mode" in with_it
        assert "Certificate is required" in without


@pytest.mark.interop
def test_curl_gets_the_alert_of_a_foreign_protocol(site: Site) -> None:
    from mailserver.config.model import Listener

    class Imap:
        def __init__(self, policy: TlsPolicy) -> None:
            self.serverConnectionForTLS = policy.creator(Listener("imaps")).serverConnectionForTLS

    with serving(Imap(TlsPolicy(site.config(), quiet))) as port:  # type: ignore[arg-type]
        assert "alert number 120" in s_client(port, "-alpn", "h2,http/1.1")
        assert "ALPN protocol: imap" in s_client(port, "-alpn", "imap,h2")
        done = subprocess.run(
            ["curl", "-sSk", f"https://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode != 0
    assert "application protocol" in done.stderr
