"""Presets, settings of a listener and of a domain: who can connect how, and what is said of a wrong word."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from OpenSSL import SSL

from mailserver.config.model import Acme, AcmeDns, Domain, Listener, Relay, Tls
from mailserver.tls.context.settings import PRESETS, settings_of
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site, quiet

NAME, OTHER = b"mail.example.test", b"mail.example.org"
V12, V13 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION
CHACHA_FIRST = b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path).add("example.test", [NAME.decode()]).add("example.org", [OTHER.decode()])


def listener(**settings: object) -> Listener:
    return Listener("pop3s", **settings)


def serving(site: Site, *listeners: Listener) -> TlsPolicy:
    config = site.config()
    return TlsPolicy(attrs.evolve(config, listeners=(*config.listeners, *listeners)), quiet)


class TestPreset:
    @pytest.mark.parametrize("suite", [b"ECDHE-ECDSA-AES128-SHA", b"ECDHE-ECDSA-AES256-SHA384"])
    def test_old_devices_get_cbc_and_others_do_not(self, site: Site, suite: bytes) -> None:
        with pytest.raises(SSL.Error, match="handshake failure"):
            Client(V12, suite).connect(serving(site), NAME)
        site.tls = ['preset = "old-devices"']
        assert Client(V12, suite).connect(serving(site), NAME).suite == suite.decode()

    def test_old_devices_get_rsa_key_exchange(self, tmp_path: Path) -> None:
        from tests.tls.test_pair import rsa_pair

        site = Site(tmp_path).add("example.test", [NAME.decode()])
        site.put("example.test", *rsa_pair([NAME.decode()], 2048))
        with pytest.raises(SSL.Error, match="handshake failure"):
            Client(V12, b"AES128-SHA").connect(serving(site), NAME)
        site.tls = ['preset = "old-devices"']
        assert Client(V12, b"AES128-SHA").connect(serving(site), NAME).suite == "AES128-SHA"

    def test_who_can_do_better_does(self, site: Site) -> None:
        """Even if it asks for the worse one first."""
        site.tls = ['preset = "old-devices"']
        worse_first = b"ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-GCM-SHA256"
        assert Client(V12, worse_first).connect(serving(site), NAME).suite == "ECDHE-ECDSA-AES128-GCM-SHA256"
        assert Client().connect(serving(site), NAME).version == "TLSv1.3"

    def test_no_preset_takes_less_than_1_2(self, site: Site) -> None:
        site.tls = ['preset = "old-devices"']
        with pytest.raises(SSL.Error):
            Client(SSL.TLS1_1_VERSION, b"ALL:@SECLEVEL=0").connect(serving(site), NAME)

    def test_a_key_comes_before_the_preset(self) -> None:
        tls = Tls(preset="old-devices", cipher_order="client")
        assert settings_of(tls) == attrs.evolve(PRESETS["old-devices"], cipher_order="client")

    def test_a_listener_comes_before_both(self) -> None:
        tls = Tls(tickets=True, maximum_version="1.3")
        assert settings_of(tls, listener(tickets=False)) == attrs.evolve(PRESETS["modern"], tickets=False)


def test_the_page_has_the_presets_values() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tls.md").read_text(encoding="utf-8")
    modern, old = PRESETS["modern"], PRESETS["old-devices"]
    assert f"| `ciphers` | `{modern.ciphers}` |" in page
    assert old.ciphers.startswith(modern.ciphers.removesuffix(":!aNULL"))
    assert f"| `groups` | `{modern.groups}` | the same |" in page
    assert modern.groups == old.groups
    assert modern.ciphersuites == old.ciphersuites
    for one in (modern, old):
        assert f"`{one.cipher_order}`: " in page
        assert (one.minimum_version, one.maximum_version, one.tickets) == ("1.2", "1.3", True)


NOT_OF_TLS = {
    Listener: {
        *("port", "addresses", "socket", "proxy_from", "number"),
        *("socket_mode", "socket_owner", "socket_group", "trusted_authentication_results"),
        "client_address",
    },
    Domain: {"name", "mx", "sites", "mta_sts", "number", "quota", "site", "dkim"},
    Acme: {"dns", "thumbprint"},
    Relay: {"host", "port", "user", "password_file", "timeout"},
}
"""Keys that the page on TLS need not tell of, and fields that are no keys."""


def test_the_page_has_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tls.md").read_text(encoding="utf-8")
    begin = page.index("*Every TLS setting*")
    rows: dict[str, str] = {}
    name = ""
    for line in page[begin : page.index("\n## ", begin)].splitlines():
        if line.startswith("| "):
            first, rest = line[2:].split("|", 1)
            name = first.strip() or name
            rows[name] = rows.get(name, "") + rest
    for heading, kind in {
        "`[tls]`": Tls,
        "`[[listener]]`": Listener,
        "`[[domain]]`": Domain,
        "`[acme]`": Acme,
        "`[acme.dns]`": AcmeDns,
        "`[submission.relay]`": Relay,
    }.items():
        keys = {field.name for field in attrs.fields(kind)} - NOT_OF_TLS.get(kind, set())
        assert {key for key in keys if f"`{key}`" not in rows[heading]} == set(), heading


class TestListener:
    def test_versions(self, site: Site) -> None:
        old, new = listener(maximum_version="1.2"), listener(minimum_version="1.3")
        policy = serving(site, old, new)
        assert Client().connect(policy.creator(old), NAME).version == "TLSv1.2"
        with pytest.raises(SSL.Error, match="protocol version"):
            Client(V12).connect(policy.creator(new), NAME)
        assert Client().connect(policy, NAME).version == "TLSv1.3"
        assert Client(V12).connect(policy, NAME).version == "TLSv1.2"

    def test_suites_of_1_3(self, site: Site) -> None:
        one = listener(ciphersuites="TLS_CHACHA20_POLY1305_SHA256")
        assert Client().connect(serving(site, one).creator(one), NAME).suite == "TLS_CHACHA20_POLY1305_SHA256"

    def test_groups(self, site: Site) -> None:
        one = listener(groups="P-384")
        assert Client(V13).connect(serving(site, one).creator(one), NAME).group == "secp384r1"

    def test_order(self, site: Site) -> None:
        one = listener(cipher_order="server")
        policy = serving(site, one)
        client = Client(V12, CHACHA_FIRST)
        assert client.connect(policy, NAME).suite == "ECDHE-ECDSA-CHACHA20-POLY1305"
        assert client.connect(policy.creator(one), NAME).suite == "ECDHE-ECDSA-AES256-GCM-SHA384"

    @pytest.mark.parametrize("version", [V12, V13])
    def test_tickets(self, site: Site, version: int) -> None:
        one = listener(tickets=False)
        policy = serving(site, one)
        for creator, resumed in ((policy.creator(one), False), (policy, True)):
            client = Client(version)
            assert client.connect(creator, NAME, client.connect(creator, NAME).session).resumed == resumed

    @pytest.mark.parametrize("version", [V12, V13])
    def test_they_come_to_another_process_and_outlive_reloads(self, site: Site, version: int) -> None:
        one = listener(groups="P-384")
        policy = serving(site, one)
        other = TlsPolicy(site.config(), quiet, material=policy.material)
        for each in (policy, other):
            client = Client(version)
            session = client.connect(each.creator(one), NAME).session
            site.renew("example.test")
            config = site.config()
            prepared = policy.prepare(attrs.evolve(config, listeners=(*config.listeners, one)))
            assert not prepared.bases
            if each is policy:
                policy.commit(prepared)
            else:
                other.commit(other.prepare_material(prepared.material))
            again = client.connect(each.creator(one), NAME, session)
            assert again.resumed
            assert again.group == "secp384r1"

    def test_a_new_one_makes_one_base_and_leaves_the_others(self, site: Site) -> None:
        policy = serving(site)
        client = Client()
        session = client.connect(policy, NAME).session
        one = listener(groups="P-384")
        config = site.config()
        prepared = policy.prepare(attrs.evolve(config, listeners=(*config.listeners, one, one)))
        assert list(prepared.bases) == [settings_of(Tls(), one)]
        policy.commit(prepared)
        assert Client().connect(policy.creator(one), NAME).group == "secp384r1"
        assert client.connect(policy, NAME, session).resumed

    def test_a_bad_one_at_a_reload_leaves_all_as_it_is(self, site: Site) -> None:
        one = listener(groups="P-384")
        policy = serving(site, one)
        config = site.config()
        outcomes = policy.reload(attrs.evolve(config, listeners=(attrs.evolve(one, groups="nonsense"),)))
        assert (outcomes[0].name, outcomes[0].state) == ("[tls]", "refused")
        assert Client().connect(policy.creator(one), NAME).group == "secp384r1"


class TestDomain:
    def test_minimum_version(self, site: Site) -> None:
        """RFC 8446 6.2: alert protocol_version(70)."""
        site.of_domain["example.test"] = ['minimum_version = "1.3"']
        policy = serving(site)
        faults: list[str] = []
        with pytest.raises(SSL.Error, match="protocol version"):
            Client(V12).connect(policy, NAME, faults=faults)
        assert faults == ["mail.example.test takes no TLS below 1.3: renew the client, or lower minimum_version there"]
        assert Client(V13).connect(policy, NAME).version == "TLSv1.3"
        assert Client(V12).connect(policy, OTHER).version == "TLSv1.2"

    def test_a_session_does_not_get_around_it(self, site: Site) -> None:
        policy = serving(site)
        client = Client(V12)
        session = client.connect(policy, NAME).session
        site.of_domain["example.test"] = ['minimum_version = "1.3"']
        policy.reload(site.config())
        with pytest.raises(SSL.Error, match="protocol version"):
            client.connect(policy, NAME, session)

    def test_ciphers(self, site: Site) -> None:
        site.of_domain["example.test"] = ['ciphers = "ECDHE+CHACHA20"']
        policy = serving(site)
        assert Client(V12).connect(policy, NAME).suite == "ECDHE-ECDSA-CHACHA20-POLY1305"
        assert Client(V12, b"ECDHE+AESGCM").connect(policy, OTHER).suite.endswith("GCM-SHA384")
        with pytest.raises(SSL.Error, match="handshake failure"):
            Client(V12, b"ECDHE+AESGCM").connect(policy, NAME)

    @pytest.mark.parametrize(
        ("tls", "domain", "place", "reason"),
        [
            ([], ['ciphers = "ECDHE+AES"'], "[domain 1] ciphers", "without CBC"),
            (
                ['minimum_version = "1.3"'],
                ['minimum_version = "1.2"'],
                "[domain 1] minimum_version",
                "is below that of [tls], which a name cannot lower",
            ),
            (
                ['maximum_version = "1.2"'],
                ['minimum_version = "1.3"'],
                "[domain 1] minimum_version",
                "is above maximum_version of [tls]: no client could reach example.test there",
            ),
            (
                ['maximum_version = "1.2"', 'minimum_version = "1.3"'],
                [],
                "[tls] maximum_version",
                'must not be below minimum_version, which is "1.3"',
            ),
            (
                ['ciphersuites = "TLS_AES_128_GCM_SHA256:AES128-SHA"'],
                [],
                "[tls] ciphersuites",
                "OpenSSL knows no suite 'AES128-SHA' of TLS 1.3",
            ),
            (['ciphersuites = "TLS_AES_128_CCM_SHA256"'], [], "[tls] ciphersuites", "must name one of TLS_AES_256_GCM"),
            (['ciphersuites = "TLS_NONSENSE"'], [], "[tls] ciphersuites", "OpenSSL knows no suite 'TLS_NONSENSE'"),
            (
                [],
                ['ciphers = "ECDHE-RSA-AES128-GCM-SHA256:NONSENSE"'],
                "[domain 1] ciphers",
                "OpenSSL knows no cipher suites 'NONSENSE'",
            ),
            (['groups = "?X25519MLKEM768:ffdhe2048"'], [], "[tls] groups", "names no group of TLS 1.2"),
        ],
    )
    def test_faults(self, site: Site, tls: list[str], domain: list[str], place: str, reason: str) -> None:
        site.tls, site.of_domain["example.test"] = tls, domain
        (problem,) = validation.check(site.config())
        assert problem.place == place
        assert reason in problem.reason

    def test_groups_of_1_3_do_where_nothing_older_is_served(self, site: Site) -> None:
        site.tls = ['groups = "X25519MLKEM768/X25519"']
        assert validation.check(site.config()) == [], "the one behind the slash is of TLS 1.2 too"
        site.tls = ['groups = "X25519MLKEM768"', 'minimum_version = "1.3"']
        assert validation.check(site.config()) == []
        assert Client().connect(serving(site), NAME).group == "X25519MLKEM768"

    def test_suites_of_1_2_for_other_keys_alone_are_told(self, site: Site) -> None:
        """Nothing fails at the start, and no client of TLS 1.2 would get through."""
        for_rsa = 'ciphers = "ECDHE-RSA-AES128-GCM-SHA256"'
        site.of_domain["example.test"] = [for_rsa]
        (problem,) = validation.check(site.config())
        assert (problem.place, problem.warning) == ("[domain 1] certificate", True)
        assert "has a key of ECDSA, and ciphers names no suite for one" in problem.reason
        with pytest.raises(SSL.Error, match="handshake failure"):
            Client(V12).connect(serving(site), NAME)
        site.of_domain["example.test"] += ['minimum_version = "1.3"']
        assert validation.check(site.config()) == []
        site.of_domain["example.test"], site.tls = [], [for_rsa]
        assert [each.place for each in validation.check(site.config())] == [
            "[domain 1] certificate",
            "[domain 2] certificate",
        ]

    def test_old_suites_in_a_domain_need_the_preset_too(self, site: Site) -> None:
        site.tls, site.of_domain["example.test"] = ['preset = "old-devices"'], ['ciphers = "ECDHE+AES"']
        assert validation.check(site.config()) == []


class TestSecondPair:
    """RSA beside ECDSA: each client gets what it can use, with the chain of that one."""

    @pytest.fixture
    def both(self, tmp_path: Path) -> Site:
        from tests.tls.test_pair import rsa_pair

        site = Site(tmp_path).add("example.test", [NAME.decode()])
        certificate, key = rsa_pair([NAME.decode()], 2048)
        other, _key = validation.make_ca("Another")
        site.put("rsa", certificate + other, key)
        site.of_domain["example.test"] = ['second_certificate = "rsa.pem"', 'second_key = "rsa.key"']
        return site

    def test_by_what_the_client_can(self, both: Site) -> None:
        policy = serving(both)
        assert Client(V12, b"aECDSA").connect(policy, NAME).suite.startswith("ECDHE-ECDSA")
        assert Client(V12, b"aRSA").connect(policy, NAME).suite.startswith("ECDHE-RSA")
        assert Client(V12).connect(policy, NAME).suite.startswith("ECDHE-ECDSA"), "the faster one, where both will do"

    @pytest.mark.parametrize(("ciphers", "length"), [(b"aECDSA", 1), (b"aRSA", 2)])
    def test_each_has_its_own_chain(self, both: Site, ciphers: bytes, length: int) -> None:
        assert Client(V12, ciphers).connect(serving(both), NAME).sent == length

    def test_it_comes_to_another_process(self, both: Site) -> None:
        other = TlsPolicy(both.config(), quiet, material=serving(both).material)
        assert Client(V12, b"aRSA").connect(other, NAME).suite.startswith("ECDHE-RSA")

    def test_both_are_judged(self, both: Site) -> None:
        both.key("rsa").write_bytes(both.key("example.test").read_bytes())
        (problem,) = (each for each in validation.check(both.config()) if not each.warning)
        assert (problem.place, problem.reason) == (
            "[domain 1] second_key",
            "does not belong to the certificate: put both files of the same renewal there",
        )

    def test_one_of_them_may_be_for_1_3_alone(self, both: Site) -> None:
        both.of_domain["example.test"] += ['ciphers = "ECDHE+AESGCM+aRSA"']
        chain_only = validation.check(both.config())
        assert [each.place for each in chain_only] == ["[domain 1] second_certificate"], "what the fixture has planted"
        # Without the second pair the same ciphers are a fault.
        both.of_domain["example.test"] = both.of_domain["example.test"][2:]
        (problem,) = validation.check(both.config())
        assert "has a key of ECDSA, and ciphers names no suite for one" in problem.reason

    def test_a_second_one_of_the_same_type(self, both: Site) -> None:
        for name in ("certificate", "key"):
            getattr(both, name)("rsa").write_bytes(getattr(both, name)("example.test").read_bytes())
        (problem,) = validation.check(both.config())
        assert problem.reason == "has a key of the first one's type; a second one is for RSA"

    def test_it_covers_the_same_hosts(self, both: Site) -> None:
        from tests.tls.test_pair import rsa_pair

        both.put("rsa", *rsa_pair(["elsewhere.example.test"], 2048))
        (problem,) = validation.check(both.config())
        assert (
            problem.reason
            == "is not covered by second_certificate, which names elsewhere.example.test: have one issued for it, or take it out"
        )

    def test_a_bad_renewal_of_it_keeps_both(self, both: Site) -> None:
        policy = serving(both)
        both.certificate("rsa").write_bytes(b"nonsense")
        (outcome,) = policy.reload(both.config())
        assert outcome.state == "refused"
        assert outcome.why.startswith("second_certificate is not a certificate in PEM")
        assert Client(V12, b"aRSA").connect(policy, NAME).suite.startswith("ECDHE-RSA")
