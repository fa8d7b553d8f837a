"""What is said of two files that are to be a certificate and its key."""

from __future__ import annotations

import datetime as dt
import os
import pwd
from pathlib import Path

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailserver.config.directories import Identity
from mailserver.tls.keypair.pair import BadPair, covers, load_pair, pair_faults, parse_pair
from mailserver.tls.keypair.pem import Fault, read_file
from mailserver.tls.serving import validation
from tests.tls.site import Site, authority

HOST = "mail.example.test"
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def signed(key, *, names=(HOST,), usage=ExtendedKeyUsageOID.SERVER_AUTH, days=90, start=NOW, issuer=HOST) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=days))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


def pem(key, passphrase: bytes | None = None) -> bytes:
    cipher = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)


def rsa_pair(names: list[str], bits: int) -> tuple[bytes, bytes]:
    key = rsa.generate_private_key(65537, bits)
    return signed(key, names=names, start=dt.datetime.now(dt.UTC)), pem(key)


KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = signed(KEY)


@pytest.fixture
def faults_of(tmp_path: Path):
    def judge(certificate: bytes, key: bytes, hosts=(HOST,), now=NOW + dt.timedelta(days=1)) -> list[str]:
        (tmp_path / "c").write_bytes(certificate)
        (tmp_path / "k").write_bytes(key)
        try:
            faults = pair_faults(load_pair(tmp_path / "c", tmp_path / "k"), hosts, now)
        except BadPair as bad:
            faults = list(bad.faults)
        return [f"{'warning ' if fault.warning else ''}{fault.key}: {fault.reason}" for fault in faults]

    return judge


def test_a_good_pair(tmp_path: Path, faults_of) -> None:
    assert faults_of(GOOD, pem(KEY)) == []
    pair = load_pair(tmp_path / "c", tmp_path / "k")
    certificate = x509.load_pem_x509_certificate(GOOD)
    assert pair.names == (HOST,)
    assert pair.not_after == NOW + dt.timedelta(days=90)
    assert pair.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    assert "PRIVATE" not in repr(pair)


@pytest.mark.parametrize(
    ("certificate", "key", "expected"),
    [
        (b"", pem(KEY), ["certificate: is empty: it must hold the certificate"]),
        (
            pem(KEY),
            pem(KEY),
            ["certificate: is a private key, not a certificate in PEM: name the certificate's file here"],
        ),
        (GOOD, GOOD, ["key: is a certificate, not a private key in PEM: name the private key's file here"]),
        (
            x509.load_pem_x509_certificate(GOOD).public_bytes(serialization.Encoding.DER),
            pem(KEY),
            [
                "certificate: is not a certificate in PEM: it is binary; `openssl x509`, `pkey` or `pkcs12 -nodes` write PEM"
            ],
        ),
        (
            b"x",
            b"y",
            [
                f"{key}: is not a {what} in PEM: it has no line -----BEGIN {what.upper()}-----"
                for key, what in (("certificate", "certificate"), ("key", "private key"))
            ],
        ),
        (
            GOOD,
            pem(KEY, b"secret"),
            ["key: has a passphrase, which nobody can type: set key_password_file or key_password_command"],
        ),
        (
            GOOD,
            pem(ec.generate_private_key(ec.SECP256R1())),
            ["key: does not belong to the certificate: put both files of the same renewal there"],
        ),
        (
            GOOD.replace(b"\n", b"\nAAAA", 1),
            pem(KEY),
            ["certificate: holds a certificate that cannot be decoded: copy the file again"],
        ),
        (
            GOOD,
            b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
            ["key: cannot be decoded: copy the file again"],
        ),
        (
            signed(KEY, names=()),
            pem(KEY),
            [
                "certificate: has no subject alternative DNS name, the only one that clients check: have it issued with one"
            ],
        ),
        (
            signed(KEY, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            pem(KEY),
            ["certificate: is not made for servers: have it issued with extended key usage serverAuth"],
        ),
        (
            signed(KEY, usage=None),
            pem(KEY),
            ["warning certificate: has no extended key usage serverAuth; Apple's clients ask for it"],
        ),
        (
            signed(KEY, days=826),
            pem(KEY),
            ["warning certificate: is valid for 826 days; phones refuse more than 825"],
        ),
        (
            GOOD + GOOD[:0] + authority()[0],
            pem(KEY),
            [
                "warning certificate: has its chain out of order: certificate 2 did not sign certificate 1: the server's own comes first, then its issuer, and so on"
            ],
        ),
    ],
)
def test_faults(faults_of, certificate: bytes, key: bytes, expected: list[str]) -> None:
    assert faults_of(certificate, key) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (rsa.generate_private_key(65537, 1024), "key: is RSA of 1024 bits; clients need at least 2048: make a new key"),
        (
            ec.generate_private_key(ec.SECP521R1()),
            "key: is on the curve secp521r1; clients know P-256 and P-384: make a new key",
        ),
        (
            ed25519.Ed25519PrivateKey.generate(),
            "key: must be RSA or ECDSA; mail clients know nothing else: make a new key",
        ),
    ],
)
def test_kinds_of_keys(faults_of, key, expected: str) -> None:
    assert faults_of(signed(key), pem(key)) == [expected]


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (-1, ["warning certificate: is not valid before 2026-06-01 00:00 UTC: check the clock of this machine"]),
        (0, []),
        (82, []),
        (84, ["warning certificate: expires on 2026-08-30: renew it"]),
        (90, ["warning certificate: expired on 2026-08-30; clients refuse it: renew it"]),
    ],
)
def test_dates(faults_of, day: int, expected: list[str]) -> None:
    assert faults_of(GOOD, pem(KEY), now=NOW + dt.timedelta(days=day)) == expected


def test_hosts_that_are_not_covered(faults_of) -> None:
    assert faults_of(GOOD, pem(KEY), hosts=(HOST, "imap.example.test")) == [
        "hosts: is not covered by the certificate, which names mail.example.test: have one issued for it, or take it out"
    ]


@pytest.mark.parametrize(
    ("names", "host", "expected"),
    [
        (["a.example"], "a.example", True),
        (["*.example.org"], "a.example.org", True),
        (["*.example.org"], "*.example.org", True),
        (["*.example.org"], "a.b.example.org", False),
        (["*.example.org"], "example.org", False),
        (["a.example.org"], "*.example.org", False),
        ([], "a.example", False),
    ],
)
def test_covers(names: list[str], host: str, expected: bool) -> None:
    assert covers(names, host) is expected


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "big").write_bytes(b"-----BEGIN CERTIFICATE-----" + bytes(1 << 20))
    for name, reason in (
        ("fifo", "must be a regular file"),
        ("big", "must be at most 1048576 octets"),
        ("missing", "cannot be read: No such file or directory"),
        (".", "must be a regular file"),
    ):
        with pytest.raises(BadPair) as caught:
            load_pair(tmp_path / name, tmp_path / name)
        assert [(fault.key, fault.reason) for fault in caught.value.faults] == [
            ("certificate", reason),
            ("key", reason),
        ]


class TestMaking:
    def test_self_signed(self) -> None:
        certificate_pem, key_pem = validation.make_self_signed(["mail.Example.test", "*.example.test", "192.0.2.1"])
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["mail.example.test", "*.example.test"]
        assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
        # Apple's rule for certificates of private authorities: at most 825 days.
        assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= dt.timedelta(days=825)
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
        certificate.verify_directly_issued_by(certificate)
        key = serialization.load_pem_private_key(key_pem, None)
        assert key.public_key() == certificate.public_key()

    def test_long_name(self) -> None:
        host = "a" * 60 + ".example.test"
        certificate = x509.load_pem_x509_certificate(validation.make_self_signed([host])[0])
        assert len(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value) == 64
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [host]

    def test_no_name(self) -> None:
        with pytest.raises(ValueError, match="at least one name"):
            validation.make_self_signed([])

    def test_issued_certificate_verifies(self) -> None:
        """By the path validation of cryptography, which is strict about RFC 5280 and the web's rules."""
        from cryptography.x509.verification import PolicyBuilder, Store

        store = Store([x509.load_pem_x509_certificate(authority()[0])])
        certificate = x509.load_pem_x509_certificate(validation.issue(authority(), [HOST])[0])
        verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(HOST))
        assert verifier.verify(certificate, []) == [certificate, x509.load_pem_x509_certificate(authority()[0])]


class TestCheck:
    """`certificates.check`, what --check says."""

    def test_nothing_wrong(self, tmp_path: Path) -> None:
        assert validation.check(Site(tmp_path).add("example.test", [HOST]).config()) == []

    def test_everything_wrong_of_one_certificate(self, tmp_path: Path) -> None:
        site = Site(tmp_path).add("example.test", [HOST])
        old = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
        names, usage = ["elsewhere.example.test"], ExtendedKeyUsageOID.CLIENT_AUTH
        site.put("example.test", signed(KEY, names=names, usage=usage, start=old, days=3))
        told = {(problem.place, problem.reason.split(":")[0]) for problem in validation.check(site.config())}
        assert told == {
            ("[domain 1] certificate", "is not made for servers"),
            ("[domain 1] certificate", "expired on 2025-01-04; clients refuse it"),
            ("[domain 1] hosts", "is not covered by the certificate, which names elsewhere.example.test"),
            ("[domain 1] key", "does not belong to the certificate"),
        }

    def test_everything_wrong_at_once(self, tmp_path: Path) -> None:
        site = Site(tmp_path).add("example.test", [HOST]).add("example.org", ["mail.example.org"])
        site.renew("example.org", ["other.example.org"])
        site.key("example.org").chmod(0o644)
        site.certificate("example.test").unlink()
        site.tls = ['ciphers = "ECDHE+AES"', 'groups = "X25519:nonsense"']
        site.more = '[submission.relay]\nhost = "smtp.example.net"\nca_file = "missing.pem"'
        config = site.config()
        told = [str(problem).removeprefix(str(config.source)) for problem in validation.check(config)]
        expected = [
            ' [tls] groups = "X25519:nonsense": OpenSSL knows no such groups',
            f' [domain 1] certificate = "{tmp_path}/example.test.pem": cannot be read: No such file or directory',
            ' [domain 2] hosts = "mail.example.org": is not covered by the certificate, which names other.example.org: have one issued for it, or take it out',
            (
                f' [domain 2] key = "{tmp_path}/example.org.key": warning: can be read or changed by every user of this'
                " machine: chmod 600, and renew what was in it"
            ),
            f' [submission.relay] ca_file = "{tmp_path}/missing.pem": cannot be read: No such file or directory',
        ]
        assert told[0].startswith(' [tls] ciphers = "ECDHE+AES": must name authenticated suites without CBC, not ')
        assert told[1:] == expected

    @pytest.mark.parametrize(
        ("mode", "own_group", "told"),
        [
            (0o600, False, []),
            (0o640, True, []),
            (0o640, False, ["can be read or changed by a group that is not the service's: chgrp or chmod 600"]),
            (0o620, False, ["can be read or changed by a group that is not the service's: chgrp or chmod 600"]),
            (
                0o644,
                True,
                ["can be read or changed by every user of this machine: chmod 600, and renew what was in it"],
            ),
        ],
    )
    def test_who_else_can_read_a_key(self, tmp_path: Path, mode: int, own_group: bool, told: list[str]) -> None:
        site = Site(tmp_path).add("example.test", [HOST])
        # Root's own group is as good as root; anybody else's files have a group of theirs.
        group = 54321 if os.geteuid() == 0 else os.getegid()
        os.chown(site.key("example.test"), -1, group)
        site.key("example.test").chmod(mode)
        identity = Identity(os.geteuid(), frozenset({group} if own_group else ()))
        faults = list(validation._rights(site.config().domains[0], identity))
        assert [fault.reason for fault in faults] == told
        assert all(fault.warning for fault in faults)

    def test_who_else_can_read_the_relay_key(self, tmp_path: Path) -> None:
        site = Site(tmp_path).add("example.test", [HOST])
        site.put("relay", *validation.issue(authority(), ["relay.example.test"]))
        site.more = '[submission.relay]\nhost = "smtp.example.net"\ncertificate = "relay.pem"\nkey = "relay.key"'
        assert validation.check(site.config()) == []
        site.key("relay").chmod(0o644)
        (problem,) = validation.check(site.config())
        assert problem.place == "[submission.relay] key"
        assert problem.warning
        assert "every user of this machine: chmod 600" in problem.reason

    def test_files_that_the_service_cannot_read_again(self, tmp_path: Path) -> None:
        """The service sheds root after binding; a key that only root can read would fail at the first reload."""
        site = Site(tmp_path).add("example.test", [HOST])
        site.user = next(name for name in ("nobody", "daemon") if pwd.getpwnam(name).pw_uid != os.geteuid())
        # pytest makes the directory for its own user alone, so not even the certificate can be reached.
        config = site.config()
        alone = attrs.evolve(config, server=attrs.evolve(config.server, workers=0))
        told = [(problem.place, problem.reason) for problem in validation.check(alone)]
        why = (
            "which reads it: workers = 0 has one process with that user; with workers a master started as root reads it"
        )
        assert told == [
            (place, f"cannot be read by user {site.user!r}, {why}")
            for place in ("[domain 1] certificate", "[domain 1] key")
        ]
        if os.geteuid() == 0:
            assert validation.check(config) == [], "with workers the master reads it, who stays root"

    @pytest.mark.parametrize(
        ("ciphers", "reason"),
        [
            ("nonsense", "OpenSSL knows no cipher suites 'nonsense'"),
            ("ECDHE+AESGCM:ECDHE+NONSENSE:!RC4", "OpenSSL knows no cipher suites 'ECDHE+NONSENSE'"),
            (
                "ECDHE+AESGCM:TLS_AES_128_GCM_SHA256",
                "OpenSSL knows no cipher suites 'TLS_AES_128_GCM_SHA256'; TLS 1.3 suites belong in ciphersuites of [tls] or a [[listener]]",
            ),
            ("ECDHE+AESGCM:@SECLEVEL=0", "must not change OpenSSL's security level"),
            ("AES128-GCM-SHA256", "must name suites with forward secrecy (ECDHE), not AES128-GCM-SHA256{old}"),
            ("ECDHE-RSA-AES128-SHA", "must name authenticated suites without CBC, not ECDHE-RSA-AES128-SHA{old}"),
            ("ADH-AES256-GCM-SHA384", "must name authenticated suites that are safe, not ADH-AES256-GCM-SHA384"),
        ],
    )
    def test_cipher_suites(self, tmp_path: Path, ciphers: str, reason: str) -> None:
        site = Site(tmp_path).add("example.test", [HOST])
        site.tls = [f'ciphers = "{ciphers}"']
        problems = validation.check(site.config())
        assert [(problem.place, problem.reason) for problem in problems] == [
            ("[tls] ciphers", reason.format(old='; or say preset = "old-devices" in [tls]'))
        ]

    def test_a_signature_that_openssl_refuses(self, tmp_path: Path) -> None:
        """A leaf on a chain with a weak key: judged good by its dates and names, refused by OpenSSL's level 2."""
        weak = rsa.generate_private_key(65537, 1024)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak authority")])
        start = dt.datetime.now(dt.UTC)
        intermediate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(weak.public_key())
            .serial_number(9)
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=90))
            .sign(weak, hashes.SHA256())
        )
        site = Site(tmp_path).add("example.test", [HOST])
        chain = site.certificate("example.test").read_bytes() + intermediate.public_bytes(serialization.Encoding.PEM)
        site.put("example.test", certificate=chain)
        reasons = [problem.reason for problem in validation.check(site.config()) if not problem.warning]
        assert len(reasons) == 1
        assert reasons[0].startswith("is refused by OpenSSL: ")


def test_a_file_that_says_it_is_one_and_has_to_be_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As /proc/kmsg is.
    os.mkfifo(tmp_path / "file")
    writer = os.open(tmp_path / "file", os.O_RDWR)
    monkeypatch.setattr("mailserver.tls.keypair.pem.stat.S_ISREG", lambda _mode: True)
    faults: list[Fault] = []
    try:
        assert read_file(tmp_path / "file", "certificate", faults) is None
    finally:
        os.close(writer)
    assert [fault.reason for fault in faults] == ["must be a regular file"]


def test_what_a_strange_authority_writes_into_it_is_not_shown_as_it_is() -> None:
    chain = signed(KEY, names=(HOST, "\x1b[2Jmail.example.org", "a\nb", "x" * 300), issuer="\x1b[2J\x07" + "y" * 40)
    pair = parse_pair(chain, pem(KEY))
    assert pair.names == (HOST,)
    assert pair.issuer.isprintable()
    assert "y" * 40 in pair.issuer
