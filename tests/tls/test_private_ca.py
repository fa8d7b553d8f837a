"""An authority in a directory: what is recorded, what is refused, what is left by a crash, two at once."""

from __future__ import annotations

import datetime as dt
import multiprocessing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from mailserver.tls.ca import authority as making
from mailserver.tls.ca import names as ca_names
from mailserver.tls.ca import private_ca, renewal
from mailserver.tls.ca.names import BadName
from mailserver.tls.ca.private_ca import PrivateCa, open_ca
from mailserver.tls.ca.records import CaFault, Record
from mailserver.types import Secret

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
PUBLIC = making.make_key().public_key()


def make(
    directory: Path, *, only: tuple[str, ...] = (), passphrase: Secret | None = None, days: int = 3650
) -> PrivateCa:
    private_ca.create(directory, "Ours", key_type="p256", days=days, only=only, passphrase=passphrase, now=NOW)
    return open_ca(directory)


def issue(one: PrivateCa, *names: str, days: int = 397, now: dt.datetime = NOW) -> x509.Certificate:
    purpose = "client" if "@" in names[0] else "server"
    return one.sign(one.unlock(None), PUBLIC, names, purpose, days=days, now=now)


def records(one: PrivateCa) -> list[Record]:
    opened = one.records()
    try:
        return opened.all()
    finally:
        opened.close()


def the_list(one: PrivateCa) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl((one.directory / "ca.crl").read_bytes())


def number(one: PrivateCa) -> int:
    return the_list(one).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def revoke(one: PrivateCa, name: str, reason: str = "unspecified", now: dt.datetime = NOW) -> None:
    opened = one.records()
    found = opened.find(name)
    opened.close()
    one.revoke(one.unlock(None), found, reason, now)


def test_what_only_its_owner_reads(tmp_path: Path) -> None:
    make(tmp_path / "ca")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()}
    assert modes == {"ca.key": 0o600, "ca.sqlite": 0o600, "ca.pem": 0o644, "ca.crl": 0o644}


def test_what_is_issued_is_recorded(tmp_path: Path) -> None:
    one = make(tmp_path)
    made = issue(one, "mail.example.org", "*.example.org")
    issue(one, "anna@example.org", now=NOW + dt.timedelta(days=1))
    user, server = records(one)
    assert (user.purpose, user.names) == ("client", ("anna@example.org",))
    assert (server.purpose, server.names) == ("server", ("mail.example.org", "*.example.org"))
    assert server.serial == f"{made.serial_number:x}"
    assert x509.load_der_x509_certificate(server.certificate) == made
    assert server.until == made.not_valid_after_utc.timestamp()
    assert server.state(NOW) == "valid"
    assert server.state(NOW + dt.timedelta(days=398)) == "expired"


def test_a_certificate_ends_with_its_authority(tmp_path: Path) -> None:
    one = make(tmp_path, days=100)
    assert issue(one, "mail.example.org").not_valid_after_utc <= one.certificate.not_valid_after_utc
    with pytest.raises(CaFault, match="own certificate ended"):
        issue(one, "mail.example.org", now=NOW + dt.timedelta(days=100))
    assert len(records(one)) == 1


def test_only_for_some_domains(tmp_path: Path) -> None:
    one = make(tmp_path, only=("example.org",))
    issue(one, "mail.example.org", "*.example.org", "example.org")
    issue(one, "anna@example.org")
    for name in ("mail.example.com", "badexample.org", "anna@example.com", "*.org"):
        with pytest.raises(CaFault, match=r"may sign for example\.org alone"):
            issue(one, name)
    assert len(records(one)) == 2


class TestRevocation:
    def test_the_list_has_it(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        assert len(the_list(one)) == 0, "there is a list from the beginning"
        bad = issue(one, "anna@example.org")
        issue(one, "ben@example.org")
        revoke(one, "anna@example.org", "keyCompromise")
        found = the_list(one)
        assert found.is_signature_valid(one.certificate.public_key())  # type: ignore[arg-type]
        [entry] = found
        assert entry.serial_number == bad.serial_number
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
        assert [record.state(NOW) for record in records(one) if "anna@example.org" in record.names] == ["revoked"]

    def test_no_reason_is_no_extension(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        issue(one, "anna@example.org")
        revoke(one, "anna@example.org")
        assert list(next(iter(the_list(one))).extensions) == []

    def test_what_is_revoked_stays_so_as_it_was(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        issue(one, "anna@example.org")
        revoke(one, "anna@example.org", "superseded")
        revoke(one, "anna@example.org", "keyCompromise", NOW + dt.timedelta(days=3))
        [record] = records(one)
        assert (record.revoked, record.reason) == (NOW.timestamp(), "superseded")

    def test_numbers_grow(self, tmp_path: Path) -> None:
        """RFC 5280 5.2.3."""
        one = make(tmp_path)
        first = number(one)
        one.renew_list(one.unlock(None), 30, NOW)
        assert number(one) > first
        assert the_list(one).next_update_utc == NOW + dt.timedelta(days=30, hours=-1)

    def test_a_record_begun_anew_takes_nothing_back(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        serials = {issue(one, name).serial_number for name in ("anna@example.org", "ben@example.org")}
        revoke(one, "anna@example.org", "keyCompromise")
        revoke(one, "ben@example.org")
        before = number(one)
        (tmp_path / "ca.sqlite").unlink()
        one = make(tmp_path)
        assert {entry.serial_number for entry in the_list(one)} == serials
        reasons = {len(list(entry.extensions)) for entry in the_list(one)}
        assert reasons == {0, 1}, "with the reasons that were given"
        assert number(one) > before

    def test_nor_does_an_old_backup(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        issue(one, "anna@example.org")
        old = (tmp_path / "ca.sqlite").read_bytes()
        for _time in range(3):
            one.renew_list(one.unlock(None), 30, NOW)
        revoke(one, "anna@example.org")
        before = number(one)
        (tmp_path / "ca.sqlite").write_bytes(old)
        one.renew_list(one.unlock(None), 30, NOW)
        assert (len(the_list(one)), number(one)) == (1, before + 1)

    def test_a_command_that_was_killed_before_it_wrote_the_list(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = make(tmp_path)
        issue(one, "anna@example.org")

        def die(*_given: object, **_more: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(private_ca, "replace_file", die)
            with pytest.raises(KeyboardInterrupt):
                revoke(one, "anna@example.org")
        assert (len(the_list(one)), [record.names for record in one.unlisted()]) == (0, [("anna@example.org",)])
        assert renewal.list_is_due(one, NOW), "a server mends it"
        one.renew_list(one.unlock(None), one.list_days, NOW)
        assert (len(the_list(one)), one.unlisted()) == (1, [])

    def test_the_life_of_the_list_stays_as_it_was_chosen(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        issue(one, "anna@example.org")
        one.renew_list(one.unlock(None), 30, NOW)
        revoke(one, "anna@example.org")
        assert the_list(one).next_update_utc == NOW + dt.timedelta(days=30, hours=-1)


class TestFaults:
    def test_there_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(CaFault, match="mailserver ca init"):
            open_ca(tmp_path)

    def test_no_second_one(self, tmp_path: Path) -> None:
        make(tmp_path)
        key = (tmp_path / "ca.key").read_bytes()
        with pytest.raises(CaFault, match="there is an authority"):
            make(tmp_path)
        assert (tmp_path / "ca.key").read_bytes() == key

    def test_a_passphrase(self, tmp_path: Path) -> None:
        one = make(tmp_path, passphrase=Secret(b"long words"))
        assert one.is_locked
        assert one.unlock(Secret(b"long words")).certificate == one.certificate
        with pytest.raises(CaFault, match="cannot be decrypted with that passphrase"):
            one.unlock(Secret(b"other words"))
        with pytest.raises(CaFault, match="must be given"):
            one.unlock(None)

    @pytest.mark.parametrize("octets", [b"", b"-----BEGIN CERTIFICATE-----\nMII", b"\xff\xfe"])
    def test_a_torn_certificate(self, tmp_path: Path, octets: bytes) -> None:
        make(tmp_path)
        (tmp_path / "ca.pem").write_bytes(octets)
        with pytest.raises(CaFault, match="backup"):
            open_ca(tmp_path)

    @pytest.mark.parametrize("octets", [b"", b"-----BEGIN PRIVATE KEY-----\nMII", b"\xff\xfe"])
    def test_a_torn_key(self, tmp_path: Path, octets: bytes) -> None:
        one = make(tmp_path)
        (tmp_path / "ca.key").write_bytes(octets)
        with pytest.raises(CaFault, match="holds no private key"):
            one.unlock(None)

    def test_another_key(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        (tmp_path / "ca.key").write_bytes(making.key_pem(making.make_key()))
        with pytest.raises(CaFault, match=r"does not belong to ca\.pem"):
            one.unlock(None)

    def test_a_server_is_no_authority(self, tmp_path: Path) -> None:
        make(tmp_path)
        (tmp_path / "ca.pem").write_bytes(making.make_self_signed(["mail.example.org"])[0])
        with pytest.raises(CaFault, match="may not sign"):
            open_ca(tmp_path)

    @pytest.mark.parametrize("octets", [b"", b"nonsense" * 1000], ids=["empty", "nonsense"])
    def test_a_damaged_record_is_never_begun_anew(self, tmp_path: Path, octets: bytes) -> None:
        """A list made from an empty one would take back what was revoked."""
        one = make(tmp_path)
        issue(one, "anna@example.org")
        revoke(one, "anna@example.org")
        before = (tmp_path / "ca.crl").read_bytes()
        (tmp_path / "ca.sqlite").write_bytes(octets)
        for work in (lambda: one.renew_list(one.unlock(None), 30, NOW), lambda: issue(one, "mail.example.org")):
            with pytest.raises(CaFault, match="backup"):
                work()
        assert (tmp_path / "ca.crl").read_bytes() == before
        assert (tmp_path / "ca.sqlite").read_bytes() == octets

    def test_no_record(self, tmp_path: Path) -> None:
        one = make(tmp_path)
        (tmp_path / "ca.sqlite").unlink()
        with pytest.raises(CaFault, match="mailserver ca init"):
            issue(one, "mail.example.org")

    def test_a_key_without_its_certificate_is_not_written_over(self, tmp_path: Path) -> None:
        make(tmp_path)
        (tmp_path / "ca.pem").unlink()
        key = (tmp_path / "ca.key").read_bytes()
        with pytest.raises(CaFault, match="move the key away"):
            make(tmp_path)
        assert (tmp_path / "ca.key").read_bytes() == key

    def test_one_made_elsewhere_is_taken_over(self, tmp_path: Path) -> None:
        certificate, key = making.make_ca("Elsewhere")
        (tmp_path / "ca.pem").write_bytes(certificate)
        (tmp_path / "ca.key").write_bytes(key)
        now = dt.datetime.now(dt.UTC)
        how = {"key_type": "p256", "days": 10, "only": (), "passphrase": None, "now": now}
        assert not private_ca.create(tmp_path, "Ours", **how)  # type: ignore[arg-type]
        assert (tmp_path / "ca.pem").read_bytes() == certificate
        assert issue(open_ca(tmp_path), "mail.example.org", now=now).issuer.rfc4514_string() == "CN=Elsewhere"


def _many(directory: Path, which: int) -> None:
    one = open_ca(directory)
    for count in range(5):
        name = f"user{which}-{count}@example.org"
        issue(one, name)
        revoke(one, name)


def test_several_at_once(tmp_path: Path) -> None:
    """All is recorded, and the last list has all."""
    one = make(tmp_path)
    # Not forked: this process may have threads.
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_many, args=(tmp_path, which)) for which in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert {record.state(NOW) for record in records(one)} == {"revoked"}
    assert len(records(one)) == len(the_list(one)) == 15
    assert number(one) == 16


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("Mail.Example.ORG", "mail.example.org"),
        ("mail.example.org.", "mail.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("*.example.org", "*.example.org"),
    ],
)
def test_names_in_their_form(name: str, form: str) -> None:
    assert ca_names.hosts_of([name]) == [form]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("192.0.2.1", "not an IP address: mail clients are configured with a name"),
        ("2001:db8::1", "not an IP address: mail clients are configured with a name"),
        ("*", "wildcard"),
        ("*.org", "two labels"),
        ("mail.*.example.org", "wildcard"),
        ("*.*.example.org", "one whole label"),
        ("a" * 64 + ".example.org", "at most 63"),
        ("mail example.org", "host name"),
        ("mail\n.example.org", "control characters"),
        ("\u2603..example", "internationalised"),
        ("", "host name"),
    ],
)
def test_names_that_are_refused(name: str, why: str) -> None:
    with pytest.raises(BadName, match=why):
        ca_names.hosts_of([name])


def test_no_more_than_a_hundred_names() -> None:
    with pytest.raises(BadName, match="at most 100 names"):
        ca_names.hosts_of([f"mail{number}.example.org" for number in range(101)])


@pytest.mark.parametrize(
    "address",
    [
        "anna",
        "@example.org",
        "anna@",
        "änna@example.org",
        "a b@example.org",
        "a@192.0.2.1",
        "a@b@example.org",
        '"a"@c.org',
    ],
)
def test_users_that_are_refused(address: str) -> None:
    with pytest.raises(BadName):
        ca_names.address_of(address)


@pytest.mark.parametrize(
    "name", ["a\x1b]0;gotcha\x07.example.org", "\x00.example.org", "\u202egro.example", "a" * 60000]
)
def test_what_is_said_of_a_strangers_name_is_short_and_plain(name: str) -> None:
    for judge in (lambda: ca_names.hosts_of([name]), lambda: ca_names.address_of(f"{name}@{name}")):
        with pytest.raises(BadName) as caught:
            judge()
        said = str(caught.value)
        assert said.isprintable()
        assert len(said) < 400


def test_an_address_keeps_its_local_part() -> None:
    """RFC 5321 2.4: its letter case may matter; the domain's does not."""
    assert ca_names.address_of("Anna@Bücher.Example") == "Anna@xn--bcher-kva.example"


def test_signatures_are_of_sha_2(tmp_path: Path) -> None:
    one = make(tmp_path)
    assert isinstance(the_list(one).signature_hash_algorithm, hashes.SHA256)


def test_one_that_another_has_signed_is_sent_along(tmp_path: Path) -> None:
    root = making.make_authority("Root", making.make_key(), now=NOW)
    key, name = making.make_key(), x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Office")])
    office = (
        x509.CertificateBuilder(root.certificate.subject, name, key.public_key(), 7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + dt.timedelta(days=900))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root.key, hashes.SHA256())
    )
    (tmp_path / "ca.pem").write_bytes(making.certificate_pem(office))
    (tmp_path / "ca.key").write_bytes(making.key_pem(key))
    one = make(tmp_path)
    made = issue(one, "mail.example.org")
    assert x509.load_pem_x509_certificates(one.chain(made)) == [made, office]
    assert x509.load_pem_x509_certificates(make(tmp_path / "other").chain(made)) == [made]


def test_a_key_that_nobody_takes(tmp_path: Path) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    one = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Weak")])
    made = (
        x509.CertificateBuilder(one, one, weak.public_key(), 7, NOW, NOW + dt.timedelta(days=900))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(weak, hashes.SHA256())
    )
    (tmp_path / "ca.pem").write_bytes(making.certificate_pem(made))
    (tmp_path / "ca.key").write_bytes(making.key_pem(weak))
    with pytest.raises(CaFault, match="1024 bits"):
        make(tmp_path)
    assert not (tmp_path / "ca.sqlite").exists()
