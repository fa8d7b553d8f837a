"""Each fault that `mailserver tls probe` must find is planted alone, and found alone."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailserver.cli import dns_answers, main
from mailserver.config.kinds import HostPattern
from mailserver.config.model import Site
from mailserver.probe import chain, examine, place
from mailserver.probe.elsewhere import check_document, host_names, in_autoconfig, in_dns, reachable
from mailserver.probe.expectation import key_files
from mailserver.probe.finding import Finding, gathered
from tests.cli.nameserver import NameServer
from tests.probe.planted import DAY, HOST, NOW, Behaviour, Leaf, Planted, intermediate, root, weak_rsa

Plant = Callable[[Planted], None]


def leaf(**how: object) -> Plant:
    def plant(planted: Planted) -> None:
        planted.leaf = Leaf(**how)  # type: ignore[arg-type]

    return plant


def behaviour(**how: object) -> Plant:
    def plant(planted: Planted) -> None:
        planted.behaviour = Behaviour(**how)  # type: ignore[arg-type]

    return plant


def other_certificate(planted: Planted) -> None:
    planted.shown = Leaf()


def listener_down(planted: Planted) -> None:
    planted.down = True


def unknown_name_served(planted: Planted) -> None:
    planted.of_tls = 'unknown_name = "refuse"'


FAULTS: dict[str, tuple[str, Plant]] = {
    "expired": ("expired", leaf(start=NOW - 90 * DAY, days=80)),
    "ends soon": ("ends-soon", leaf(days=5)),
    "not yet valid": ("not-yet-valid", leaf(start=NOW + 2 * DAY)),
    "life over 825 days": ("lives-too-long", leaf(days=900)),
    "wrong name": ("wrong-name", leaf(names=("other.example.test",))),
    "no subject alternative name": ("no-alternative-name", leaf(names=())),
    "wrong extended key usage": ("wrong-purpose", leaf(usage=ExtendedKeyUsageOID.CLIENT_AUTH)),
    "weak RSA key": ("weak-key", leaf(key=weak_rsa())),
    "SHA-1": ("weak-signature", leaf(sha1=True)),
    "missing intermediate": ("missing-intermediate", leaf(chain=())),
    "chain in wrong order": ("wrong-order", leaf(chain=(root().pem, intermediate().pem))),
    "self-signed": ("self-signed", leaf(issuer=None, chain=())),
    "another certificate than configured": ("other-certificate", other_certificate),
    "listener down": ("listener-down", listener_down),
    "STARTTLS not in the list": ("starttls-not-offered", behaviour(capabilities=b"IMAP4rev1 LOGINDISABLED")),
    "STARTTLS refused": ("starttls-not-offered", behaviour(refuses_starttls=True)),
    "plaintext behind STARTTLS executed": ("cleartext-behind-starttls", behaviour(starttls="executes")),
    "plaintext behind STARTTLS answered": ("cleartext-behind-starttls", behaviour(starttls="answers")),
    "plaintext behind STARTTLS swallowed": ("cleartext-behind-starttls", behaviour(starttls="swallows")),
    "password invited before TLS": ("password-in-clear", behaviour(capabilities=b"IMAP4rev1 STARTTLS AUTH=PLAIN")),
    "TLS 1.1 accepted": ("old-version", behaviour(least=ssl.TLSVersion.TLSv1_1)),
    "no TLS 1.3": ("no-tls-1.3", behaviour(most=ssl.TLSVersion.TLSv1_2)),
    "no TLS 1.2": ("version-refused", behaviour(least=ssl.TLSVersion.TLSv1_3)),
    "ALPN not answered": ("wrong-alpn", behaviour(alpn=None)),
    "unknown name served": ("unknown-name-served", unknown_name_served),
    "unknown name refused": ("unknown-name-refused", behaviour(unknown="refuse")),
}


def codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.probe.injection.SILENCE", 0.1)


def test_where_nothing_is_planted_nothing_is_found(tmp_path: Path) -> None:
    report = Planted(tmp_path).report()
    assert report.findings == []
    assert [(row.tls, row.kind, row.versions, row.chain, row.alpn) for row in report.rows] == [
        (tls, kind, ("1.2", "1.3"), 2, "imap")
        for tls in ("implicit", "STARTTLS")
        for kind in ("exact", "unknown", "none")
    ]


PATIENCE = {"plaintext behind STARTTLS executed": 2.0, "plaintext behind STARTTLS answered": 20.0}
"""Seconds for an answer that must come, on a busy machine too; the first comes after one silence as long."""


@pytest.mark.parametrize("fault", FAULTS)
def test_fault(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault in PATIENCE:
        monkeypatch.setattr("mailserver.probe.injection.SILENCE", PATIENCE[fault])
    code, plant = FAULTS[fault]
    planted = Planted(tmp_path)
    plant(planted)
    report = planted.report()
    expected = {code, "unknown-name-policy"} if code == "other-certificate" else {code}
    assert codes(report.findings) == expected, report.findings
    assert all(finding.words and finding.warning == (code == "ends-soon") for finding in report.findings)


def test_a_name_that_requires_certificates_is_right_to_refuse_the_probe(tmp_path: Path) -> None:
    assert Planted(tmp_path, required=True).report().findings == []
    planted = Planted(tmp_path, required=True, leaf=Leaf(days=900))
    assert codes(planted.report().findings) == {"lives-too-long"}


def test_a_domain_that_no_version_is_left_for(tmp_path: Path) -> None:
    planted = Planted(tmp_path, of_tls='maximum_version = "1.2"', of_domain='minimum_version = "1.3"')
    assert codes(planted.report().findings) == {"version-not-allowed"}


def test_both_certificates_of_a_domain_are_looked_at(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    assert Planted(tmp_path, second=Leaf(key=key)).report().findings == []
    late = Planted(tmp_path, second=Leaf(key=key, start=NOW - 90 * DAY, days=80))
    assert codes(late.report().findings) == {"expired"}
    hidden = Planted(tmp_path, second=Leaf(key=key), hides_second=True)
    assert codes(hidden.report().findings) == {"second-certificate"}


def test_a_wildcard_is_asked_for_by_a_name_under_it(tmp_path: Path) -> None:
    planted = Planted(tmp_path, host="*.example.test", leaf=Leaf(names=("*.example.test",)))
    report = planted.report()
    assert report.findings == []
    assert ("wildcard", "probe.example.test") in {(row.kind, row.name) for row in report.rows}
    planted = Planted(tmp_path, host="*.example.test")
    assert codes(planted.report().findings) == {"wrong-name"}


OTHERS = ("a.example.test", "b.example.test")


def test_of_many_names_one_of_those_that_are_alike_is_asked_for_with_every_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "FULLY", 4)
    planted = Planted(tmp_path, others=OTHERS, leaf=Leaf(names=(HOST, "a.example.test")))
    for fully in (False, True):
        report = planted.report(fully=fully)
        newest_alone = {row.name for row in report.rows if row.versions == ("1.3",)}
        assert newest_alone == (set() if fully else set(OTHERS))
        assert all(row.versions == ("1.2", "1.3") for row in report.rows if row.name not in newest_alone)
        assert [(finding.code, finding.subject) for finding in gathered(report.findings)] == [
            ("wrong-name", "b.example.test")
        ], "each certificate is judged all the same"
    planted.behaviour = Behaviour(most=ssl.TLSVersion.TLSv1_2)
    assert codes(planted.report().findings) == {"wrong-name", "no-tls-1.3"}, "what fails is looked at closely"


def test_who_waits_is_told_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    Planted(tmp_path, others=OTHERS).report("a.example.test", progress=lambda done, of: told.append((done, of)))
    assert told == [(done, 6) for done in range(1, 7)], "one host, a name that nobody has, none, at two listeners"


@pytest.mark.parametrize(("limit", "connections"), [(40, 8), (9, 4), (1, 1)])
def test_as_many_connections_at_a_time_as_a_listener_takes(tmp_path: Path, limit: int, connections: int) -> None:
    limits = f"[limits]\nunauthenticated_per_address = {limit}\n"
    assert place.at_once(Planted(tmp_path, more=limits).config(9993, 9143)) == connections


def test_a_proxy_is_named_where_one_is_expected(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        web = (
            f'[[listener]]\nprotocol = "http"\nport = {port}\naddresses = ["127.0.0.1"]\nproxy_from = ["127.0.0.0/8"]\n'
        )
        config = Planted(tmp_path, more=web).config(9993, 9143)

        def answer() -> None:
            connection, _address = server.accept()
            with connection:
                while b"\r\n\r\n" not in b"".join(heard):
                    heard.append(connection.recv(4096))
                body = document(HOST, 9, "SSL")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        found = codes(list(in_autoconfig(config)))
        thread.join(20)
    assert found == {"autoconfig-closed-port"}
    assert b"".join(heard).startswith(b"PROXY UNKNOWN\r\nGET /.well-known/autoconfig/mail/config-v1.1.xml?")


def test_a_key_that_clients_do_not_know(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(root().pem)
    shown = Leaf(key=ed25519.Ed25519PrivateKey.generate())
    found = chain.check_chain(
        chain.x509.load_pem_x509_certificates(shown.pem), HOST, chain.Trust.load([tmp_path / "root.pem"]), NOW
    )
    assert codes(list(found)) == {"weak-key"}


def test_a_root_that_nobody_knows(tmp_path: Path) -> None:
    found = chain.check_chain(
        chain.x509.load_pem_x509_certificates(Leaf(chain=(intermediate().pem, root().pem)).pem),
        HOST,
        chain.Trust.load([]),
        NOW,
    )
    assert codes(list(found)) == {"unknown-authority"}


def test_key_readable_by_all(tmp_path: Path) -> None:
    planted = Planted(tmp_path, key_mode=0o644)
    assert [finding.code for finding in key_files(planted.config(1, 2))] == ["key-readable"]
    planted.key_mode = 0o640
    assert list(key_files(planted.config(1, 2))) == []


class Names:
    """A resolver that knows these."""

    def __init__(self, addresses: dict[str, str], services: dict[str, str]) -> None:
        self._addresses = addresses
        self._services = services

    def ask(self, name: str, _kind: str) -> list[str]:
        return [self._services[name]] if name in self._services else []

    def addresses(self, name: str) -> list[str]:
        return [self._addresses[name]] if name in self._addresses else []


MAIL = {"mail.example.test.": "192.0.2.1"}


@pytest.mark.parametrize(
    ("addresses", "services", "expected"),
    [
        (MAIL, {"_imaps._tcp.example.test.": "0 1 9993 mail.example.test."}, set()),
        (MAIL, {"_pop3s._tcp.example.test.": "0 0 0 ."}, set()),
        ({}, {}, {"not-in-dns"}),
        (MAIL, {"_imaps._tcp.example.test.": "0 1 993 mail.example.test."}, {"dns-without-listener"}),
        (MAIL, {"_pop3s._tcp.example.test.": "0 1 995 mail.example.test."}, {"dns-without-listener"}),
        (MAIL, {"_imaps._tcp.example.test.": "0 1 9993 old.example.test."}, {"dns-without-listener"}),
        (MAIL | {"autoconfig.example.test.": "192.0.2.1"}, {}, {"dns-without-listener"}),
    ],
)
def test_dns(tmp_path: Path, addresses: dict[str, str], services: dict[str, str], expected: set[str]) -> None:
    config = Planted(tmp_path).config(9993, 9143)
    assert codes(list(in_dns(config, Names(addresses, services), config.domains[0]))) == expected


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ('["192.0.2.1"]', set()),
        ('["192.0.2.7"]', {"dns-without-listener"}),
        ('["192.0.2.7", "::"]', set()),
    ],
)
def test_dns_leads_to_another_address(tmp_path: Path, bound: str, expected: set[str]) -> None:
    more = f'[[listener]]\nprotocol = "pop3s"\naddresses = {bound}\n'
    config = Planted(tmp_path, more=more).config(9993, 9143)
    assert codes(list(in_dns(config, Names(MAIL, {}), config.domains[0]))) == expected


def test_a_site_that_is_not_published_is_a_warning(tmp_path: Path) -> None:
    config = Planted(tmp_path).config(9993, 9143)
    domain = evolve(
        config.domains[0], sites=(Site(hosts=(HostPattern("autoconfig.example.test"), HostPattern("*.example.test"))),)
    )
    (found,) = in_dns(config, Names(MAIL, {}), domain)
    assert (found.code, found.subject, found.warning) == ("not-in-dns", "autoconfig.example.test", True)


def test_a_site_has_its_listener(tmp_path: Path) -> None:
    config = Planted(tmp_path, more='[[listener]]\nprotocol = "https"\n').config(9993, 9143)
    names, (domain,) = Names(MAIL | {"autoconfig.example.test.": "192.0.2.1"}, {}), config.domains
    assert codes(list(in_dns(config, names, domain))) == {"dns-without-listener"}
    site = Site(hosts=(HostPattern("autoconfig.example.test"),))
    assert list(in_dns(config, names, evolve(domain, sites=(site,)))) == []


def test_localhost_is_not_looked_for_in_dns(tmp_path: Path) -> None:
    config = Planted(tmp_path, host="localhost").config(9993, 9143)
    assert list(in_dns(config, Names({}, {}), config.domains[0])) == []


def document(host: str, port: int, security: str) -> bytes:
    return (
        '<clientConfig version="1.1"><emailProvider id="example.test"><incomingServer type="imap">'
        f"<hostname>{host}</hostname><port>{port}</port><socketType>{security}</socketType>"
        "</incomingServer></emailProvider></clientConfig>"
    ).encode()


def test_autoconfig(tmp_path: Path) -> None:
    with Planted(tmp_path).serving() as config:
        found = place.places(config)
        implicit, starttls = (each.listener.tcp_port for each in found)

        def judged(octets: bytes) -> set[str]:
            return codes(list(check_document(host_names(config), config.domains[0], octets, found, reachable)))

        assert judged(document(HOST, implicit, "SSL")) == set()
        assert judged(document(HOST, starttls, "STARTTLS")) == set()
        assert judged(document(HOST, implicit, "STARTTLS")) == {"autoconfig-wrong"}
        assert judged(document("old.example.test", implicit, "SSL")) == {"autoconfig-wrong"}
        assert judged(document(HOST, 9, "SSL")) == {"autoconfig-closed-port"}
        assert judged(b"<clientConfig>") == {"autoconfig-wrong"}
    # Nothing listens there any more.
    assert judged(document(HOST, implicit, "SSL")) == {"autoconfig-closed-port"}


def test_autoconfig_that_cannot_be_fetched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    web = f'[[listener]]\nprotocol = "http"\nport = {port}\naddresses = ["127.0.0.1"]\n'
    assert codes(list(in_autoconfig(Planted(tmp_path, more=web).config(9993, 9143)))) == {"autoconfig-missing"}


def test_a_certificate_that_cannot_be_compared_is_a_warning(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    with planted.serving() as config:
        (tmp_path / "chain.pem").unlink()
        command = ["tls", "probe", "--no-dns", "--ca", str(tmp_path / "root.pem"), "--config", str(config.source)]
        done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "file-unreadable" in done.output


def test_the_same_fault_of_several_places_is_one() -> None:
    finding = Finding("expired", HOST, "words")
    found = gathered(
        [
            Finding("ends-soon", HOST, "words", warning=True, place="c"),
            evolve(finding, place="a"),
            evolve(finding, place="b"),
        ]
    )
    assert [(each.code, seen) for each, seen in found.items()] == [("expired", ["a", "b"]), ("ends-soon", ["c"])]


def test_command(tmp_path: Path) -> None:
    planted = Planted(tmp_path)
    with planted.serving() as config:
        command = ["tls", "probe", "--no-dns", "--config", str(config.source)]
        good = CliRunner().invoke(main, [*command, "--ca", str(tmp_path / "root.pem")])
        bad = CliRunner().invoke(main, [*command, "--json"])
        text = config.source.read_text()
        config.source.write_text(text.replace("[tls]\n", '[tls]\nprivate_ca = "root.pem"\n'))
        own = CliRunner().invoke(main, command)
        nobody = CliRunner().invoke(main, [*command, "--name", "B\u00fccher.example.test"])
    assert good.exit_code == 0, good.output
    assert "nothing is wrong" in good.output
    assert own.exit_code == 0, own.output
    assert bad.exit_code == 1, bad.output
    told = json.loads(bad.output)
    assert {finding["code"] for finding in told["findings"]} == {"missing-intermediate"}
    assert len(told["rows"]) == 6
    assert nobody.exit_code == 2
    assert "no domain has the host xn--bcher-kva.example.test; " in nobody.stderr


def test_dns_is_asked_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = Planted(tmp_path)
    with (
        planted.serving() as config,
        NameServer("example.test", ["_imaps._tcp.example.test. 60 IN SRV 0 1 993 mail.example.test."]) as server,
    ):
        command = ["tls", "probe", "--json", "--ca", str(tmp_path / "root.pem"), "--config", str(config.source)]
        asked = CliRunner().invoke(main, [*command, "--resolver", server.address])
        with monkeypatch.context() as impatient:
            impatient.setattr(dns_answers, "PATIENCE", 1.0)
            another = evolve(config.domains[0], name="other.test")
            impatient.setattr("mailserver.cli.tls.domains_with", lambda config, _hosts: [*config.domains, another])
            silent = CliRunner().invoke(main, [*command, "--resolver", "127.0.0.1:9"])
        server.failing.add("SRV")
        failing = CliRunner().invoke(main, [*command, "--resolver", server.address])
    told = {finding["code"] for finding in json.loads(asked.output)["findings"]}
    assert told == {"not-in-dns", "dns-without-listener"}
    (unanswered,) = json.loads(silent.output)["findings"]
    assert (unanswered["code"], unanswered["subject"]) == ("dns-unanswered", "example.test"), (
        "nobody waits for the other"
    )
    assert asked.exit_code == silent.exit_code == failing.exit_code == 1
    told = {(finding["code"], finding["subject"]) for finding in json.loads(failing.output)["findings"]}
    assert told == {("not-in-dns", "mail.example.test"), ("dns-unanswered", "example.test")}


@pytest.mark.parametrize(
    ("starttls", "status", "states"),
    [
        ("refuses", 0, {"refused"}),
        ("executes", 1, {"executed"}),
        ("answers", 1, {"executed"}),
        ("swallows", 1, {"swallowed"}),
    ],
)
def test_selftest(tmp_path: Path, starttls: str, status: int, states: set[str]) -> None:
    with Planted(tmp_path, behaviour=Behaviour(starttls=starttls)).serving() as config:
        done = CliRunner().invoke(main, ["selftest", "starttls", "--json", "--config", str(config.source)])
    told = json.loads(done.output)
    assert {verdict["state"] for verdict in told} == states
    assert {verdict["way"] for verdict in told} == {"with the command", "before the handshake"}
    assert done.exit_code == status


def test_selftest_of_a_listener_that_is_not_there_is_no_success(tmp_path: Path) -> None:
    with Planted(tmp_path).serving() as config:
        pass
    done = CliRunner().invoke(main, ["selftest", "starttls", "--config", str(config.source)])
    assert done.exit_code == 1
    assert "not tried" in done.output
