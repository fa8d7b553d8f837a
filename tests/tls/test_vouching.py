"""For whose users a client's certificate may speak (`TlsPolicy.vouches`)."""

from pathlib import Path

from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.client_authority import ClientAuthority
from tests.tls.site import Site, quiet

ASKED = 'client_certificates = "asked"'


def policy_of(directory: Path, **domains: list[str]) -> TlsPolicy:
    """Domains `one.test` and so on, with these further lines."""
    for name in ("a.pem", "b.pem"):
        (directory / name).write_bytes(ClientAuthority(name).pem)
    site = Site(directory)
    for name, lines in domains.items():
        site.add(f"{name}.test", [f"mail.{name}.test"])
        site.of_domain[f"{name}.test"] = lines
    return TlsPolicy(site.config(), quiet)


def test_an_authority_speaks_for_the_domains_that_name_it(tmp_path: Path) -> None:
    policy = policy_of(
        tmp_path,
        one=[ASKED, 'client_ca = "a.pem"'],
        two=['client_certificates = "required"', 'client_ca = "a.pem"'],
        three=[ASKED, 'client_ca = "b.pem"'],
        four=[ASKED, 'client_ca = "a.pem"', 'client_user = "commonName"'],
        five=[],
    )
    assert policy.accepts_certificate("mail.one.test", "one.test")
    assert policy.accepts_certificate("mail.one.test", "two.test")
    assert policy.accepts_certificate("mail.two.test", "one.test")
    assert not policy.accepts_certificate("mail.one.test", "three.test")
    assert not policy.accepts_certificate("mail.three.test", "one.test")
    assert not policy.accepts_certificate("mail.one.test", "four.test"), "the name stands in another field"
    assert not policy.accepts_certificate("mail.one.test", "five.test")
    assert not policy.accepts_certificate("mail.five.test", "five.test"), "it trusts nobody"
    assert not policy.accepts_certificate("mail.one.test", "elsewhere.test")
    assert policy.accepts_certificate(None, "one.test"), "the default host's"
    assert not policy.accepts_certificate(None, "three.test")
    assert not policy.accepts_certificate("mail.gone.test", "one.test"), "taken out since the handshake"
    assert not policy.accepts_certificate("mail.one.test", ""), "a user without a domain is of all"


def test_names_without_a_domain_where_all_trust_the_same(tmp_path: Path) -> None:
    same = [ASKED, 'client_ca = "a.pem"']
    assert policy_of(tmp_path, one=same, two=same).accepts_certificate("mail.two.test", "")


def test_whose_users_must_show_a_certificate(tmp_path: Path) -> None:
    required = ['client_certificates = "required"', 'client_ca = "a.pem"']
    policy = policy_of(tmp_path, one=required, two=[ASKED, 'client_ca = "a.pem"'], three=[])
    assert policy.requires_certificate("one.test")
    assert not any(policy.requires_certificate(domain) for domain in ("two.test", "three.test", "elsewhere.test"))
    assert not policy.requires_certificate(""), "a user without a domain is of all"
    (tmp_path / "alone").mkdir()
    assert policy_of(tmp_path / "alone", one=required).requires_certificate("")


def test_whose_certificates_must_name_the_user(tmp_path: Path) -> None:
    required = ['client_certificates = "required"', 'client_ca = "a.pem"']
    policy = policy_of(tmp_path, one=required, two=[*required, 'client_user = "any"'])
    assert policy.requires_named_user("one.test")
    assert not policy.requires_named_user("two.test")
    assert policy.requires_named_user(""), "a user without a domain is of all"
    assert not policy.accepts_certificate("mail.two.test", "one.test"), (
        "a certificate that names nobody does not do for those"
    )
