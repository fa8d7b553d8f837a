"""Host names of a domain under certificates of their own: what is wrong with one touches no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL

from mailserver.config.load import load
from mailserver.config.model import Config
from mailserver.tls.serving import validation
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site, authority
from tests.tls.test_pair import rsa_pair

MAIL, CONFIG, STS = "mail.example.test", "autoconfig.example.test", "mta-sts.example.test"


class Sites(Site):
    """A domain with two sites."""

    def config(self) -> Config:
        path = self.write()
        for host in (CONFIG, STS):
            path.write_text(
                f'{path.read_text()}[[domain.site]]\nhosts = ["{host}"]\ncertificate = "{host}.pem"\nkey = "{host}.key"\n'
            )
            if not self.certificate(host).exists():
                self.put(host, *validation.issue(authority(), [host]))
        config, problems = load(path)
        assert config is not None, "\n".join(map(str, problems))
        return config


@pytest.fixture
def site(tmp_path: Path) -> Sites:
    made = Sites(tmp_path)
    made.add("example.test", [MAIL])
    return made


def test_each_site_is_seen_under_its_own(site: Sites) -> None:
    config = site.config()
    policy = TlsPolicy(config, lambda *_words, **_fields: None)
    for host in (MAIL, CONFIG, STS):
        assert Client().connect(policy, host.encode()).names == (host,)
        assert policy.domain_of(host) == "example.test"
        assert policy.pair_of(host).names == (host,)
    assert policy.pair_of("elsewhere.example.net") is None
    assert validation.check(config) == []


def test_a_broken_site_stays_as_it_was_and_touches_no_other(site: Sites) -> None:
    policy = TlsPolicy(site.config(), lambda *_words, **_fields: None)
    before = {host: Client().connect(policy, host.encode()).fingerprint for host in (MAIL, CONFIG, STS)}
    site.put(CONFIG, certificate=b"not PEM")
    for host in (MAIL, STS):
        site.put("example.test" if host == MAIL else host, *validation.issue(authority(), [host]))
    outcomes = {outcome.name: outcome.state for outcome in policy.reload(site.config())}
    assert outcomes == {MAIL: "taken up", CONFIG: "refused", STS: "taken up"}
    after = {host: Client().connect(policy, host.encode()).fingerprint for host in (MAIL, CONFIG, STS)}
    assert [host for host in after if after[host] == before[host]] == [CONFIG]


def test_a_problem_names_the_site(site: Sites) -> None:
    config = site.config()
    site.put(STS, key=b"not PEM")
    assert {problem.place for problem in validation.check(config)} == {"[domain 1.site 2] key"}


def test_a_domain_whose_sites_ask_for_no_certificate_is_spoken_for_all_the_same(site: Sites) -> None:
    from tests.tls.client_authority import ClientAuthority

    site.put("clients", ClientAuthority("Clients").pem, b"")
    site.config()
    path = site.directory / "mailserver.toml"
    line = 'name = "example.test"\n'
    asking = f'{line}client_certificates = "required"\nclient_ca = "clients.pem"\n'
    path.write_text(path.read_text().replace(line, asking))
    config, problems = load(path)
    assert config is not None, "\n".join(map(str, problems))
    policy = TlsPolicy(config, lambda *_words, **_fields: None)
    assert policy.accepts_certificate(MAIL, "example.test")
    assert policy.accepts_certificate(MAIL, "")
    assert policy.requires_certificate("example.test")
    assert not policy.accepts_certificate(CONFIG, "example.test"), "nobody is asked there"
    assert Client().connect(policy, CONFIG.encode()).names == (CONFIG,)


def test_a_site_may_have_a_second_pair_and_a_key_with_a_password(site: Sites) -> None:
    site.config()
    certificate, key = rsa_pair([CONFIG], 2048)
    encryption = serialization.BestAvailableEncryption(b"hunter2")
    locked = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    site.put("rsa", certificate, locked)
    site.put("password", key=b"hunter2\n")
    path = site.directory / "mailserver.toml"
    line = f'key = "{CONFIG}.key"\n'
    more = 'second_certificate = "rsa.pem"\nsecond_key = "rsa.key"\nkey_password_file = "password.key"\n'
    path.write_text(path.read_text().replace(line, line + more))
    config, problems = load(path)
    assert config is not None, "\n".join(map(str, problems))
    assert validation.check(config) == []
    policy = TlsPolicy(config, lambda *_words, **_fields: None)
    shown = {
        Client(SSL.TLS1_2_VERSION, suites).connect(policy, CONFIG.encode()).fingerprint
        for suites in (b"ECDHE-RSA-AES128-GCM-SHA256", b"ECDHE-ECDSA-AES128-GCM-SHA256")
    }
    assert len(shown) == 2
