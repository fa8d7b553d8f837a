"""Certificates of clients: who is taken for whom, what is refused with which alert and words, and no way around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from mailserver.config.model import Listener
from mailserver.tls.changes import trial
from mailserver.tls.context.client_certificates import user_of
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.client_authority import DAY, ClientAuthority
from tests.tls.site import Client, Site, authority, quiet
from tests.tls.test_wire import serving

OPEN, CLOSED = b"mail.example.org", b"mail.example.test"
VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])


@pytest.fixture
def clients() -> ClientAuthority:
    return ClientAuthority()


@pytest.fixture
def site(tmp_path: Path, clients: ClientAuthority) -> Site:
    """example.test demands certificates, example.org does not."""
    site = Site(tmp_path).add("example.org", [OPEN.decode()]).add("example.test", [CLOSED.decode()])
    (tmp_path / "clients.pem").write_bytes(clients.pem)
    return demand(site, "required")


def demand(site: Site, how: str, *more: str) -> Site:
    site.of_domain["example.test"] = [f'client_certificates = "{how}"', 'client_ca = "clients.pem"', *more]
    return site


def with_list(site: Site, *lists: bytes) -> Site:
    (site.directory / "clients.crl").write_bytes(b"".join(lists))
    site.of_domain["example.test"].append('client_crl = "clients.crl"')
    return site


def refused(policy: TlsPolicy, client: Client, session: SSL.Session | None = None) -> tuple[str, str]:
    """The alert that the client sees, and what the administrator is told."""
    faults: list[str] = []
    with pytest.raises(SSL.Error) as caught:
        client.connect(policy, CLOSED, session, faults=faults)
    return str(caught.value), faults[0] if faults else ""


@VERSIONS
def test_a_certificate_says_who_it_is(site: Site, clients: ClientAuthority, version: int) -> None:
    seen = Client(version, certificate=clients.issue()).connect(TlsPolicy(site.config(), quiet), CLOSED)
    assert seen.client is not None
    assert user_of(seen.client, "rfc822Name") == "anna@example.test"
    assert seen.fault == ""


@VERSIONS
@pytest.mark.parametrize("how", ["asked", "required"])
def test_who_signs_for_clients_is_not_sent_with_the_own_chain(
    site: Site, clients: ClientAuthority, version: int, how: str
) -> None:
    """Where one authority signs for both: OpenSSL would add it to every handshake, from the clients' trust."""
    (site.directory / "clients.pem").write_bytes(clients.pem + authority()[0])
    client = Client(version, certificate=clients.issue())
    assert client.connect(TlsPolicy(demand(site, how).config(), quiet), CLOSED).sent == 1


@VERSIONS
def test_where_none_is_asked_for_none_counts(site: Site, clients: ClientAuthority, version: int) -> None:
    seen = Client(version, certificate=clients.issue()).connect(TlsPolicy(site.config(), quiet), OPEN)
    assert (seen.client, seen.fault) == (None, "")


@pytest.mark.parametrize(
    ("version", "alert"),
    # RFC 8446 6.2: certificate_required(116); RFC 5246 7.4.6: handshake_failure(40).
    [(SSL.TLS1_3_VERSION, "certificate required"), (SSL.TLS1_2_VERSION, "handshake failure")],
)
def test_required_and_none_shown(site: Site, version: int, alert: str) -> None:
    policy = TlsPolicy(site.config(), quiet)
    assert alert in refused(policy, Client(version))[0]


@VERSIONS
def test_asked_and_none_shown(site: Site, version: int) -> None:
    seen = Client(version).connect(TlsPolicy(demand(site, "asked").config(), quiet), CLOSED)
    assert (seen.client, seen.fault) == (None, "")


def strangers(clients: ClientAuthority) -> tuple[bytes, bytes]:
    return ClientAuthority("Strangers").issue()


def self_signed(clients: ClientAuthority) -> tuple[bytes, bytes]:
    return validation.make_self_signed(["anna.example.test"])


BAD: list[tuple[str, Callable[[ClientAuthority], tuple[bytes, bytes]], str, str]] = [
    ("expired", lambda clients: clients.issue(begin=-3 * DAY, end=-DAY), "certificate expired", "expired: give"),
    ("not yet valid", lambda clients: clients.issue(begin=DAY, end=3 * DAY), "bad certificate", "not valid yet"),
    (
        "wrong purpose",
        lambda clients: clients.issue(usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "unsupported certificate",
        "clientAuth",
    ),
    ("unknown authority", strangers, "unknown ca", "signed by CN=Strangers, which is not in client_ca"),
    ("self-signed", self_signed, "unknown ca|unsupported certificate", "authority of client_ca|clientAuth"),
]


@VERSIONS
@pytest.mark.parametrize(("make", "alert", "words"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_a_bad_certificate_is_refused_with_its_alert_and_words(
    site: Site,
    clients: ClientAuthority,
    version: int,
    make: Callable[[ClientAuthority], tuple[bytes, bytes]],
    alert: str,
    words: str,
) -> None:
    """RFC 8446 6.2 and RFC 5246 7.2.2: 45, 42, 43, 48."""
    faults: list[str] = []
    with pytest.raises(SSL.Error, match=alert):
        Client(version, certificate=make(clients)).connect(TlsPolicy(site.config(), quiet), CLOSED, faults=faults)
    assert any(part in faults[0] for part in words.split("|")), faults


@VERSIONS
@pytest.mark.parametrize("make", [each[1] for each in BAD], ids=[each[0] for each in BAD])
def test_where_one_is_asked_for_a_bad_one_counts_as_none(
    site: Site, clients: ClientAuthority, version: int, make: Callable[[ClientAuthority], tuple[bytes, bytes]]
) -> None:
    policy = TlsPolicy(demand(site, "asked").config(), quiet)
    seen = Client(version, certificate=make(clients)).connect(policy, CLOSED)
    assert seen.client is None
    assert seen.fault


class TestRevocation:
    @VERSIONS
    def test_revoked(self, site: Site, clients: ClientAuthority, version: int) -> None:
        good, bad = clients.issue(), clients.issue()
        clients.revoke(bad[0])
        policy = TlsPolicy(with_list(site, clients.crl()).config(), quiet)
        assert Client(version, certificate=good).connect(policy, CLOSED).client is not None
        alert, words = refused(policy, Client(version, certificate=bad))
        assert "certificate revoked" in alert
        assert "revoked by client_crl" in words

    def test_a_new_list_counts_after_a_reload(self, site: Site, clients: ClientAuthority) -> None:
        one = clients.issue()
        policy = TlsPolicy(with_list(site, clients.crl()).config(), quiet)
        assert Client(certificate=one).connect(policy, CLOSED).client is not None
        clients.revoke(one[0])
        (site.directory / "clients.crl").write_bytes(clients.crl())
        prepared = policy.prepare(site.config())
        assert not prepared.bases, "other names' tickets, and the workers, go on"
        policy.commit(prepared)
        assert "revoked by" in refused(policy, Client(certificate=one))[1]

    def test_a_list_that_is_too_old_refuses_all(self, site: Site, clients: ClientAuthority) -> None:
        """Who holds back new lists must not undo a revocation. The start says so, and goes on."""
        with_list(site, clients.crl(begin=-3 * DAY, end=-DAY))
        (problem,) = validation.check(site.config())
        assert problem.warning
        assert "client_crl" in problem.place
        assert "too old" in problem.reason
        alert, words = refused(TlsPolicy(site.config(), quiet), Client(certificate=clients.issue()))
        assert "certificate expired" in alert
        assert "list of CN=Clients has expired: put a new one" in words

    def test_a_list_that_ends_soon_is_told_in_time(self, site: Site, clients: ClientAuthority) -> None:
        with_list(site, clients.crl(begin=-300 * DAY, end=30 * DAY))
        (problem,) = validation.check(site.config())
        assert problem.warning
        assert problem.reason.startswith("ends on ")
        with_list(site, clients.crl(begin=-300 * DAY, end=40 * DAY))
        site.of_domain["example.test"].pop()
        assert validation.check(site.config()) == []

    def test_a_list_in_der(self, site: Site, clients: ClientAuthority) -> None:
        der = x509.load_pem_x509_crl(clients.crl()).public_bytes(serialization.Encoding.DER)
        policy = TlsPolicy(with_list(site, der).config(), quiet)
        assert Client(certificate=clients.issue()).connect(policy, CLOSED).client is not None

    def test_each_authority_has_a_list(self, site: Site, clients: ClientAuthority) -> None:
        other = ClientAuthority("Others")
        (site.directory / "clients.pem").write_bytes(clients.pem + other.pem)
        with_list(site, clients.crl())
        (problem,) = validation.check(site.config())
        assert problem.reason == "holds no list of CN=Others, whose certificates would all be refused: add it"
        (site.directory / "clients.crl").write_bytes(clients.crl() + other.crl())
        assert validation.check(site.config()) == []
        policy = TlsPolicy(site.config(), quiet)
        assert Client(certificate=other.issue()).connect(policy, CLOSED).client is not None

    def test_no_list_of_an_authority_in_between(self, site: Site, clients: ClientAuthority) -> None:
        between = ClientAuthority("Between", parent=clients)
        (site.directory / "clients.pem").write_bytes(clients.pem)
        policy = TlsPolicy(with_list(site, clients.crl()).config(), quiet)
        alert, words = refused(policy, Client(certificate=between.issue(chain=between.pem)))
        assert "unknown ca" in alert
        assert "no revocation list of CN=Between" in words

    def test_a_list_of_another_key_is_no_list(self, site: Site) -> None:
        with_list(site, ClientAuthority().crl())
        (problem,) = validation.check(site.config())
        assert "holds no list of CN=Clients" in problem.reason

    @pytest.mark.parametrize("octets", [b"", b"nonsense", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
    def test_no_list_at_all(self, site: Site, octets: bytes) -> None:
        (problem,) = validation.check(with_list(site, octets).config())
        assert problem.place.endswith("client_crl")
        assert not problem.warning


def test_an_authority_in_between_may_be_trusted_by_itself(site: Site, clients: ClientAuthority) -> None:
    between = ClientAuthority("Between", parent=clients)
    (site.directory / "clients.pem").write_bytes(between.pem)
    policy = TlsPolicy(site.config(), quiet)
    assert Client(certificate=between.issue()).connect(policy, CLOSED).client is not None
    assert "unknown ca" in refused(policy, Client(certificate=clients.issue()))[0]


def test_what_is_no_authority(site: Site, clients: ClientAuthority) -> None:
    (site.directory / "clients.pem").write_bytes(clients.issue()[0])
    (problem,) = validation.check(site.config())
    assert problem.reason == "holds, at 1, CN=Anna, which is not an authority: name its issuer instead"
    (site.directory / "clients.pem").write_bytes(ClientAuthority(days=0).pem)
    (problem,) = validation.check(site.config())
    assert problem.warning


class TestResumption:
    """DESIGN: a ticket of a name that asks for nothing must not open one that demands a certificate."""

    def test_a_ticket_of_another_name_opens_nothing(self, site: Site) -> None:
        policy = TlsPolicy(site.config(), quiet)
        client = Client(SSL.TLS1_3_VERSION)
        session = client.connect(policy, OPEN).session
        assert client.connect(policy, OPEN, session).resumed  # it is one that works
        alert, _words = refused(policy, client, session)
        assert "certificate required" in alert

    def test_nor_one_of_1_2(self, site: Site) -> None:
        client = Client(SSL.TLS1_2_VERSION)
        policy = TlsPolicy(site.config(), quiet)
        with pytest.raises(SSL.Error, match="handshake failure"):
            client.connect(policy, CLOSED, client.connect(policy, OPEN).session)

    @VERSIONS
    def test_it_gives_no_identity_where_one_is_asked_for(self, site: Site, version: int) -> None:
        policy = TlsPolicy(demand(site, "asked").config(), quiet)
        client = Client(version)
        assert client.connect(policy, CLOSED, client.connect(policy, OPEN).session).client is None

    @VERSIONS
    @pytest.mark.parametrize("how", ["asked", "required"])
    def test_each_connection_shows_its_certificate(
        self, site: Site, clients: ClientAuthority, version: int, how: str
    ) -> None:
        """No session is resumed there, so that a revocation counts at once."""
        policy = TlsPolicy(demand(site, how).config(), quiet)
        client = Client(version, certificate=clients.issue())
        again = client.connect(policy, CLOSED, client.connect(policy, CLOSED).session)
        assert not again.resumed
        assert again.client is not None

    @VERSIONS
    def test_a_demand_that_is_new_ends_the_sessions_of_before(self, site: Site, version: int) -> None:
        """A client that has a ticket of yesterday is asked like any other, and not refused for its ticket."""
        site.of_domain = {}
        policy = TlsPolicy(site.config(), quiet)
        client = Client(version)
        session = client.connect(policy, CLOSED).session
        policy.reload(demand(site, "asked").config())
        again = client.connect(policy, CLOSED, session)
        assert not again.resumed

    def test_other_reloads_keep_them(self, site: Site) -> None:
        policy = TlsPolicy(site.config(), quiet)
        client = Client(SSL.TLS1_3_VERSION)
        session = client.connect(policy, OPEN).session
        site.renew("example.org")
        site.add("example.net", ["mail.example.net"])
        site.of_domain["example.net"] = site.of_domain["example.test"]
        assert not policy.prepare(site.config()).bases
        policy.reload(site.config())
        assert client.connect(policy, OPEN, session).resumed

    def test_nor_does_material_of_another_process_forget_it(self, site: Site, clients: ClientAuthority) -> None:
        policy = TlsPolicy(site.config(), quiet)
        other = TlsPolicy(site.config(), quiet, material=policy.material)
        assert "certificate required" in refused(other, Client(SSL.TLS1_3_VERSION))[0]
        assert Client(certificate=clients.issue()).connect(other, CLOSED).client is not None


def test_a_bad_file_keeps_the_last_demand(site: Site) -> None:
    policy = TlsPolicy(site.config(), quiet)
    (site.directory / "clients.pem").write_bytes(b"nonsense")
    outcomes = {outcome.name: outcome.state for outcome in policy.reload(site.config())}
    assert outcomes[CLOSED.decode()] == "refused"
    assert outcomes[OPEN.decode()] == "unchanged"
    assert "certificate required" in refused(policy, Client(SSL.TLS1_3_VERSION))[0]


@pytest.mark.parametrize(
    ("field", "user"),
    [
        ("rfc822Name", "anna@example.test"),
        ("emailAddress", "anna@example.org"),
        ("commonName", "Anna"),
        ("userId", "anna"),
    ],
)
def test_user_of(clients: ClientAuthority, field: str, user: str) -> None:
    subject = (
        (NameOID.COMMON_NAME, "Anna"),
        (NameOID.USER_ID, "anna"),
        (NameOID.EMAIL_ADDRESS, "anna@example.org"),
    )
    certificate = x509.load_pem_x509_certificate(clients.issue(subject=subject)[0])
    assert user_of(certificate, field) == user


@pytest.mark.parametrize(
    "certificate",
    [
        {"mail": ()},
        {"mail": ("anna@example.test", "bert@example.test")},
    ],
)
def test_no_user_or_two_are_none(clients: ClientAuthority, certificate: dict[str, tuple[str, ...]]) -> None:
    assert user_of(x509.load_pem_x509_certificate(clients.issue(**certificate)[0]), "rfc822Name") == ""


@pytest.mark.parametrize("name", ["anna\0@example.test", "anna\r\nx", "a\u202eb"])
def test_control_characters_make_no_user(clients: ClientAuthority, name: str) -> None:
    certificate = x509.load_pem_x509_certificate(clients.issue(subject=((NameOID.COMMON_NAME, name),))[0])
    assert user_of(certificate, "commonName") == ""


@VERSIONS
def test_the_probe_of_our_own_listeners_has_no_certificate(site: Site, version: int) -> None:
    """A renewal must not be taken back for that."""
    site.tls = [f'maximum_version = "{"1.2" if version == SSL.TLS1_2_VERSION else "1.3"}"']
    policy = TlsPolicy(site.config(), quiet)
    expected = {each.host: trial.fingerprints(each) for each in policy._map.by_host.values()}
    assert len(expected) == 2
    with serving(policy) as port:
        own = [Listener("imaps", port=port, addresses=("127.0.0.1",))]
        assert trial.check_listeners(own, expected, {CLOSED.decode()}) == {}
