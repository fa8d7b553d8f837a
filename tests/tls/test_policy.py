"""Which certificate a client sees, before and after a reload."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from mailserver.tls.context.context_map import parse_server_name
from mailserver.tls.context.contexts import make_context
from mailserver.tls.context.private_names import set_groups
from mailserver.tls.context.settings import PRESETS
from mailserver.tls.keypair.pair import load_pair
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import CannotServe, TlsPolicy
from tests.tls.site import ORG, TEST, Client, Lines, Site, client_hello


@pytest.mark.parametrize(
    ("name", "names"),
    [
        (b"mail.example.test", TEST),
        (b"MAIL.Example.TEST", TEST),
        (b"mail.example.test.", TEST),
        (b"mail.example.org", ORG),
        (b"imap.example.org", ORG),
        (b"IMAP.EXAMPLE.ORG", ORG),
        # RFC 6125 6.4.3: a wildcard is one label, not two and not none.
        (b"a.imap.example.org", TEST),
        (b"example.org", TEST),
        (b"elsewhere.example.net", TEST),
        (None, TEST),
        (b"192.0.2.1", TEST),
        (b"2001:db8::1", TEST),
        (b"m\xc3\xa4il.example.org", TEST),
        (b"\xff\xfe", TEST),
        (b"*.example.org", TEST),
        (b".example.org", TEST),
        (b"..", TEST),
        (b"a" * 64 + b".example.org", TEST),
        (b"a." * 126 + b"org", TEST),
    ],
)
def test_certificate_by_name(policy: TlsPolicy, name: bytes | None, names: tuple[str, ...]) -> None:
    assert Client().connect(policy, name).names == names


def test_exact_name_comes_before_wildcard(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.org", ["*.example.org"]).add("example.net", ["mail.example.org"])
    policy = TlsPolicy(site.config(), Lines())
    assert Client().connect(policy, b"mail.example.org").names == ("mail.example.org",)
    assert Client().connect(policy, b"imap.example.org").names == ("*.example.org",)


def test_configured_default(site: Site) -> None:
    site.tls = ['default = "mail.example.org"']
    policy = TlsPolicy(site.config(), Lines())
    assert Client().connect(policy, None).names == ORG
    assert Client().connect(policy, b"elsewhere.example.net").names == ORG
    assert [line.host for line in policy.describe() if line.is_default] == ["mail.example.org"]


@pytest.mark.parametrize("name", [b"a" * 256, b"a" * 60000, b"mail.example.test\0.example.net", b"\0"])
def test_impossible_names_get_a_clean_alert(policy: TlsPolicy, capfd: pytest.CaptureFixture[str], name: bytes) -> None:
    """Names that no client library sends: RFC 6066 3 wants 1 to 2^16-1 octets of a host name, DNS 255 without NUL."""
    theirs = policy.serverConnectionForTLS(None)
    theirs.set_accept_state()
    theirs.bio_write(client_hello(name))
    with pytest.raises(SSL.Error) as caught:
        theirs.do_handshake()
    assert not isinstance(caught.value, SSL.WantReadError)
    answer = theirs.bio_read(1000)
    # RFC 8446 5.1 and 6: record type alert(21), level fatal(2).
    assert (answer[0], answer[5]) == (21, 2)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("name", "seen"), [(b"mail.example.org", "mail.example.org"), (b"", None)])
def test_a_hello_made_here_is_served(policy: TlsPolicy, name: bytes, seen: str | None) -> None:
    """So that the refusals above are of the names; an empty one is taken as none."""
    theirs = policy.serverConnectionForTLS(None)
    theirs.set_accept_state()
    theirs.bio_write(client_hello(name))
    with pytest.raises(SSL.WantReadError):
        theirs.do_handshake()
    # RFC 8446 5.1: record type handshake(22).
    assert theirs.bio_read(1000)[0] == 22
    assert parse_server_name(theirs.get_servername()) == seen


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name))
@settings(max_examples=60, deadline=None)
def test_any_name_is_served_the_default(name: bytes) -> None:
    policy = _kept_policy()
    assert Client().connect(policy, name).names in (TEST, ORG)


@given(st.binary(max_size=300) | st.text("aZ0-.", min_size=1, max_size=300).map(str.encode))
def test_server_names_are_parsed_without_raising(raw: bytes) -> None:
    name = parse_server_name(raw)
    if name is not None:
        assert name == name.lower()
        assert name.encode("ascii") == raw.removesuffix(b".").lower()
        assert 1 <= len(name) <= 253
        assert all(1 <= len(label) <= 63 for label in name.split("."))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (None, None),
        (b"", None),
        (b".", None),
        (b"a..b", None),
        (b".a", None),
        (b"a" * 64, None),
        (b"a" * 63, "a" * 63),
        (b"a." * 126 + b"a", "a." * 126 + "a"),
        (b"a." * 126 + b"aa", None),
        (b"a\nb", None),
        (b"a\n", None),
        (b"a b", None),
        (b"A.B.", "a.b"),
        ("mäil".encode(), None),
        (b"[2001:db8::1]", None),
    ],
)
def test_parse_server_name(raw: bytes | None, name: str | None) -> None:
    assert parse_server_name(raw) == name


_KEPT: list[TlsPolicy] = []


def _kept_policy() -> TlsPolicy:
    """One for all examples of a property."""
    if not _KEPT:
        import tempfile

        with tempfile.TemporaryDirectory() as directory:
            site = Site(Path(directory)).add("example.test", list(TEST)).add("example.org", list(ORG))
            _KEPT.append(TlsPolicy(site.config(), Lines()))
    return _KEPT[0]


class TestRefusal:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [1000.0]

    @pytest.fixture
    def refusing(self, site: Site, log: Lines, clock: list[float]) -> TlsPolicy:
        site.tls = ['unknown_name = "refuse"']
        return TlsPolicy(site.config(), log, seconds=lambda: clock[0])

    @pytest.mark.parametrize("name", [b"elsewhere.example.net", b"192.0.2.1", b"\xff", b"a.b.example.org"])
    @pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
    def test_unknown_name_is_refused_with_its_alert(
        self, refusing: TlsPolicy, capfd: pytest.CaptureFixture[str], name: bytes, version: int
    ) -> None:
        faults: list[str] = []
        with pytest.raises(SSL.Error) as caught:
            Client(version).connect(refusing, name, faults=faults)
        assert "no hosts have the name that it asks for: add it there" in faults[0]
        # RFC 6066 3: alert unrecognized_name(112).
        assert "unrecognized name" in str(caught.value)
        assert capfd.readouterr().err == ""

    def test_known_names_and_no_name_are_served(self, refusing: TlsPolicy, log: Lines) -> None:
        assert Client().connect(refusing, b"imap.example.org").names == ORG
        assert Client().connect(refusing, None).names == TEST
        assert log == []

    def test_one_line_a_minute(self, refusing: TlsPolicy, log: Lines, clock: list[float]) -> None:
        for _ in range(5):
            with pytest.raises(SSL.Error):
                Client().connect(refusing, b"x\ny.example.net")
        assert [fields["refusals"] for _event, fields in log] == [1]
        assert "\n" not in str(log[0][1]["name"])
        clock[0] += 60
        with pytest.raises(SSL.Error):
            Client().connect(refusing, b"elsewhere.example.net")
        # Those that were not told are counted.
        assert [fields["refusals"] for _event, fields in log] == [1, 5]

    def test_a_ticket_does_not_open_a_refused_name(self, refusing: TlsPolicy) -> None:
        client = Client(SSL.TLS1_3_VERSION)
        session = client.connect(refusing, b"mail.example.test").session
        with pytest.raises(SSL.Error, match="unrecognized name"):
            client.connect(refusing, b"elsewhere.example.net", session)

    def test_nor_does_a_session_of_1_2(self, refusing: TlsPolicy) -> None:
        client = Client(SSL.TLS1_2_VERSION)
        session = client.connect(refusing, b"mail.example.test").session
        with pytest.raises(SSL.Error, match="unrecognized name"):
            client.connect(refusing, b"elsewhere.example.net", session)

    def test_a_bug_in_the_choice_is_told_and_ends_the_handshake(
        self, refusing: TlsPolicy, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mailserver.tls.serving.policy.parse_server_name", lambda raw: 1 // 0)
        with pytest.raises(SSL.Error, match="internal error"):
            Client().connect(refusing, b"mail.example.test")
        assert "ZeroDivisionError" in capfd.readouterr().err


class TestProtocol:
    def test_versions_before_1_2_are_refused(self, policy: TlsPolicy) -> None:
        with pytest.raises(SSL.Error):
            Client(SSL.TLS1_1_VERSION, b"ALL:@SECLEVEL=0").connect(policy, b"mail.example.test")

    def test_1_2_is_refused_where_1_3_is_the_least(self, site: Site) -> None:
        site.tls = ['minimum_version = "1.3"']
        policy = TlsPolicy(site.config(), Lines())
        for name in (b"mail.example.test", b"mail.example.org", None):
            with pytest.raises(SSL.Error):
                Client(SSL.TLS1_2_VERSION).connect(policy, name)
            assert Client().connect(policy, name).version == "TLSv1.3"

    @pytest.mark.parametrize("suite", [b"ECDHE-ECDSA-AES128-SHA256", b"ECDHE-ECDSA-AES256-SHA", b"AES128-GCM-SHA256"])
    def test_no_cbc_and_no_static_keys(self, policy: TlsPolicy, suite: bytes) -> None:
        with pytest.raises(SSL.Error):
            Client(SSL.TLS1_2_VERSION, suite).connect(policy, b"mail.example.test")

    @pytest.mark.parametrize("suite", [b"ECDHE-ECDSA-AES128-GCM-SHA256", b"ECDHE-ECDSA-CHACHA20-POLY1305"])
    def test_modern_suites(self, policy: TlsPolicy, suite: bytes) -> None:
        seen = Client(SSL.TLS1_2_VERSION, suite).connect(policy, b"mail.example.org")
        assert (seen.suite.encode(), seen.names) == (suite, ORG)

    @pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
    @pytest.mark.parametrize("name", [b"mail.example.test", b"mail.example.org", None])
    def test_resumption(self, policy: TlsPolicy, version: int, name: bytes | None) -> None:
        client = Client(version)
        first = client.connect(policy, name)
        again = client.connect(policy, name, first.session)
        assert (first.resumed, again.resumed) == (False, True)
        assert again.server_name == first.server_name

    @pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
    def test_resumption_survives_a_new_certificate(self, policy: TlsPolicy, site: Site, version: int) -> None:
        client = Client(version)
        session = client.connect(policy, b"mail.example.test").session
        site.renew("example.test")
        policy.reload(site.config())
        assert client.connect(policy, b"mail.example.test", session).resumed

    def test_a_new_least_version_ends_old_tickets(self, policy: TlsPolicy, site: Site) -> None:
        client = Client(SSL.TLS1_3_VERSION)
        session = client.connect(policy, b"mail.example.test").session
        site.tls = ['minimum_version = "1.3"']
        assert str(policy.reload(site.config())[0]) == "[tls]: taken up"
        assert not client.connect(policy, b"mail.example.test", session).resumed
        with pytest.raises(SSL.Error):
            Client(SSL.TLS1_2_VERSION).connect(policy, b"mail.example.test")

    def test_rotation_ends_old_tickets_and_begins_new_ones(self, policy: TlsPolicy) -> None:
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            client = Client(version)
            old = client.connect(policy, b"mail.example.org").session
            policy.rotate_tickets()
            after = client.connect(policy, b"mail.example.org", old)
            assert not after.resumed
            assert client.connect(policy, b"mail.example.org", after.session).resumed

    def test_the_client_s_order_of_suites_counts(self, policy: TlsPolicy) -> None:
        for first, second in (("CHACHA20-POLY1305", "AES128-GCM-SHA256"), ("AES128-GCM-SHA256", "CHACHA20-POLY1305")):
            suites = f"ECDHE-ECDSA-{first}:ECDHE-ECDSA-{second}"
            seen = Client(SSL.TLS1_2_VERSION, suites.encode()).connect(policy, b"mail.example.test")
            assert seen.suite == f"ECDHE-ECDSA-{first}"

    def test_groups_are_those_configured(self, site: Site) -> None:
        site.tls = ['groups = "P-384"']
        policy = TlsPolicy(site.config(), Lines())
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            assert Client(version).connect(policy, b"mail.example.org").group == "secp384r1"

    def test_default_groups(self, policy: TlsPolicy) -> None:
        """Hybrid with ML-KEM where both have it, the curves that every client has elsewhere."""
        assert Client().connect(policy, b"mail.example.test").group == "X25519MLKEM768"
        for group in ("X25519", "P-256", "P-384"):
            client = Client()
            set_groups(client.context, group)
            seen = client.connect(policy, b"mail.example.test").group
            assert seen == {"X25519": "x25519", "P-256": "secp256r1", "P-384": "secp384r1"}[group]

    def test_renegotiation_is_refused(self, policy: TlsPolicy) -> None:
        """A client that asks again (TLS 1.2) gets no second handshake: a cheap way to burn our CPU."""
        from OpenSSL._util import lib

        theirs = policy.serverConnectionForTLS(None)
        assert lib.SSL_get_options(theirs._ssl) & SSL.OP_NO_RENEGOTIATION
        assert lib.SSL_get_options(theirs._ssl) & SSL.OP_NO_COMPRESSION
        assert not lib.SSL_get_options(theirs._ssl) & SSL.OP_NO_TICKET


class TestNames:
    def test_server_name_and_domain(self, policy: TlsPolicy) -> None:
        assert Client().connect(policy, b"IMAP.example.ORG").server_name == "imap.example.org"
        assert Client().connect(policy, None).server_name is None
        assert Client().connect(policy, b"\xff").server_name is None
        assert policy.domain_of("imap.example.org") == "example.org"
        assert policy.domain_of("mail.example.test") == "example.test"
        assert policy.domain_of("elsewhere.example.net") is None
        assert policy.domain_of(None) is None


class TestStart:
    def test_every_bad_pair_is_a_problem(self, site: Site) -> None:
        site.put("example.test", key=site.key("example.org").read_bytes())
        site.certificate("example.org").unlink()
        with pytest.raises(CannotServe) as caught:
            TlsPolicy(site.config(), Lines())
        assert [(problem.place, problem.reason) for problem in caught.value.problems] == [
            ("[domain 1] key", "does not belong to the certificate: put both files of the same renewal there"),
            ("[domain 2] certificate", "cannot be read: No such file or directory"),
        ]

    def test_bad_settings_are_problems(self, site: Site) -> None:
        site.tls = ['ciphers = "AES128-SHA"', 'groups = "nonsense"']
        with pytest.raises(CannotServe) as caught:
            TlsPolicy(site.config(), Lines())
        assert [problem.place for problem in caught.value.problems] == ["[tls] ciphers", "[tls] groups"]

    def test_an_expired_certificate_starts_with_a_warning(self, site: Site, log: Lines) -> None:
        site.renew("example.test", days=1, now=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        policy = TlsPolicy(site.config(), log)
        assert Client().connect(policy, b"mail.example.test").names == TEST
        assert log == [
            ("TLS certificate", {"host": TEST[0], "warning": "expired on 2020-01-01; clients refuse it: renew it"}),
        ]
        # Anything newer that is valid is taken up; another expired one as well, there is nothing better.
        site.renew("example.test", days=2, now=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        assert next(outcome.state for outcome in policy.reload(site.config())) == "taken up"

    def test_what_was_judged_is_what_is_loaded(self, site: Site) -> None:
        """A file that is replaced between the reading and the building does not get in unjudged."""
        config = site.config()
        pair = load_pair(config.domains[0].certificate, config.domains[0].key)
        site.put("example.test", b"not a certificate", b"not a key")
        context = make_context(pair, PRESETS["modern"])
        own = SSL.Connection(context, None).get_certificate(as_cryptography=True)
        assert own is not None
        assert own.fingerprint(hashes.SHA256()).hex() == pair.fingerprint

    def test_hosts_of_one_file_share_a_context(self, policy: TlsPolicy) -> None:
        assert len({id(serving.context) for serving in policy._map.all()}) == 2

    def test_rsa(self, tmp_path: Path) -> None:
        from tests.tls.test_pair import rsa_pair

        site = Site(tmp_path).add("example.test", list(TEST))
        certificate, key = rsa_pair(["mail.example.test"], 2048)
        site.put("example.test", certificate, key)
        seen = Client(SSL.TLS1_2_VERSION).connect(TlsPolicy(site.config(), Lines()), None)
        assert seen.suite.startswith("ECDHE-RSA-")

    def test_a_chain_is_sent_whole(self, tmp_path: Path) -> None:
        site = Site(tmp_path).add("example.test", list(TEST))
        with_authority = site.certificate("example.test").read_bytes() + _authority_pem()
        site.put("example.test", certificate=with_authority)
        policy = TlsPolicy(site.config(), Lines())
        ours, theirs = SSL.Connection(Client().context, None), policy.serverConnectionForTLS(None)
        ours.set_connect_state()
        theirs.set_accept_state()
        for _round in range(5):
            for side, other in ((ours, theirs), (theirs, ours)):
                with contextlib.suppress(SSL.WantReadError):
                    side.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(side.bio_read(65536))
        assert len(ours.get_peer_cert_chain(as_cryptography=True) or ()) == 2


def _authority_pem() -> bytes:
    from tests.tls.site import authority

    return authority()[0]


def test_self_signed_is_served(tmp_path: Path) -> None:
    site = Site(tmp_path).add("example.test", list(TEST))
    site.put("example.test", *validation.make_self_signed(list(TEST)))
    assert validation.check(site.config()) == []
    assert Client().connect(TlsPolicy(site.config(), Lines()), None).names == TEST
