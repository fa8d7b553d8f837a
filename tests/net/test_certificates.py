"""Changes of certificates in a running server: recorded, served, asked for at the listeners, and taken back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import Deferred, DeferredLock, succeed

from mailserver.net.admin.control_socket import BadRequest, DataAnswer
from mailserver.net.certificates import certificate_files
from mailserver.net.certificates import certificates as module
from mailserver.net.certificates.certificates import CONFIRMATION, EXPIRY_INTERVAL, Certificates
from mailserver.net.connection import coroutines
from mailserver.tls.serving import validation
from mailserver.tls.serving.context_builder import Outcome
from mailserver.tls.serving.material import Change
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from tests.net.test_certificate_files import Reactor
from tests.tls.client_authority import ClientAuthority
from tests.tls.site import Client, Site, authority, quiet
from tests.tls.test_pair import rsa_pair
from tests.tls.test_private_ca import issue as issue_of
from tests.tls.test_private_ca import make as make_ca
from tests.tls.test_private_ca import revoke
from tests.tls.test_transaction import Server, fingerprint

TEST, ORG = "mail.example.test", "mail.example.org"


class World:
    """All of it in one thread; `faults` is what the listeners show, one look after the other."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tls = Server(site)
        self.reactor = Reactor()
        self.served: list[tuple[str, ...]] = []
        self.faults: list[dict[str, str]] = []
        self.asked: list[set[str]] = []
        self.certificates = self.make()

    def make(self) -> Certificates:
        return Certificates(
            self.reactor,
            self.tls.policy,
            self.tls.activation,
            config=lambda: self.tls.config,
            serve=self._serve,
            one_at_a_time=DeferredLock().run,
        )

    def pass_time(self) -> None:
        for _ in range(100):
            self.reactor.advance(0.1)

    def _serve(self, prepared: Prepared) -> Deferred[list[str]]:
        self.served.append(tuple(self.tls.policy.changed_hosts(prepared)))
        self.tls.policy.commit(prepared)
        return succeed([])

    def probe(self, _listeners: object, hosts: dict[str, object], _demanding: object) -> dict[str, str]:
        self.asked.append(set(hosts))
        return self.faults.pop(0) if self.faults else {}

    def seen(self, host: str) -> str:
        return Client().connect(self.tls.policy, host.encode()).fingerprint

    def do(self, name: str, **arguments: str) -> Any:
        results: list[Any] = []
        self.certificates.commands()[name](arguments).addBoth(results.append)
        for _ in range(100):
            self.reactor.advance(0.1)
        (result,) = results
        return result

    def add(self, *hosts: str) -> Any:
        certificate, key = validation.issue(authority(), [ORG])
        return self.do(
            "cert-add",
            hosts=" ".join(hosts),
            chain=certificate.decode(),
            key=key.decode(),
            second_chain="",
            second_key="",
            reason="r",
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    def at_once(_reactor: object, _pool: object, call: Any, *given: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        done.addCallback(lambda _none: call(*given))
        done.callback(None)
        return done

    for each in (coroutines, certificate_files):
        monkeypatch.setattr(each, "deferToThreadPool", at_once)
    site = Site(tmp_path).add("example.test", [TEST]).add("example.org", [ORG])
    site.managed.add("example.org")
    made = World(site)
    monkeypatch.setattr(module.trial, "check_listeners", made.probe)
    return made


def test_an_added_one_is_served_and_asked_for(world: World) -> None:
    ok, lines = world.add()
    assert ok
    assert lines[0].startswith(f"{ORG}: taken up, until ")
    assert world.served == [(ORG,)]
    assert world.asked == [{ORG}]


def test_what_is_refused_is_not_served(world: World) -> None:
    ok, lines = world.add(TEST)
    assert not ok
    assert lines[-1] == "nothing was changed"
    assert world.served == world.asked == []


def test_what_the_listeners_do_not_show_twice_is_taken_back(world: World) -> None:
    world.add()
    before = world.seen(ORG)
    world.faults = [{ORG: "imaps at 127.0.0.1 shows another certificate"}] * 2
    ok, lines = world.add()
    assert not ok
    assert f"{ORG}: imaps at 127.0.0.1 shows another certificate" in lines
    assert lines[-1].startswith(f"went back: {ORG}: taken up")
    assert world.seen(ORG) == before
    assert world.served == [(ORG,)] * 3
    entry = world.tls.history.current(ORG)
    assert entry is not None
    assert entry.restores is not None


def test_what_they_show_a_moment_later_stays(world: World) -> None:
    world.add()
    before = world.seen(ORG)
    world.faults = [{ORG: "imaps at 127.0.0.1 shows another certificate"}]
    began = world.reactor.seconds()
    ok, _lines = world.add()
    assert ok
    assert world.seen(ORG) != before
    assert world.asked == [{ORG}] * 3
    assert world.reactor.seconds() - began >= CONFIRMATION


def test_commands_take_what_they_say(world: World) -> None:
    for name, arguments in (
        ("cert-add", {"hosts": ORG}),
        ("cert-rollback", {}),
        ("cert-rollback", {"host": 3}),
        ("cert-activate", {"host": ORG, "id": "x"}),
        ("cert-list", {"host": ORG}),
    ):
        with pytest.raises(BadRequest):
            world.certificates.commands()[name](arguments)


def test_lists(world: World) -> None:
    world.add()
    listed, history = world.do("cert-list"), world.do("cert-history", host=ORG)
    assert isinstance(listed, DataAnswer)
    assert [(row["host"], row["origin"]) for row in listed.data] == [(ORG, "added"), (TEST, "file")]
    assert (history.data[0]["origin"], history.data[0]["reason"]) == ("added", "r")
    assert listed.data[0]["activation"] == history.data[0]["id"]


def test_files_are_followed_and_ends_are_told_each_once(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[str] = []
    monkeypatch.setattr(module.log, "warn", lambda sentence, **fields: told.append(sentence.format(**fields)))
    before = world.seen(TEST)
    world.certificates.start()
    world.site.renew("example.test", days=6, now=dt.datetime.now(dt.UTC))
    for _ in range(100):
        world.reactor.advance(0.1)
    assert world.seen(TEST) != before
    assert told == []
    for _ in range(3):
        world.reactor.advance(EXPIRY_INTERVAL)
    assert len(told) == 1
    assert told[0].startswith(f"certificate: {TEST}: the certificate ends in 5 days")
    world.certificates.stop()
    assert not world.reactor.getDelayedCalls()


@pytest.mark.parametrize("again", [False, True], ids=["as they were", "renewed"])
def test_files_that_are_well_again_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, again: bool
) -> None:
    told: list[str] = []
    for level in ("info", "warn"):
        monkeypatch.setattr(module.log, level, lambda sentence, **fields: told.append(sentence.format(**fields)))
    world.certificates.start()
    world.pass_time()
    (domain,) = (each for each in world.tls.config.domains if each.name == "example.test")
    assert domain.certificate is not None
    whole = domain.certificate.read_bytes()
    domain.certificate.write_bytes(whole[:100])
    world.pass_time()
    assert [line.partition(": refused")[0] for line in told] == [f"certificate: {TEST}"]
    assert world.do("cert-list").data[1]["origin"] == "last good"
    told.clear()
    if again:
        world.site.renew("example.test")
    else:
        domain.certificate.write_bytes(whole)
    world.pass_time()
    (line,) = told
    assert ("taken up" if again else "its files are valid again, and hold what is served") in line
    assert world.do("cert-list").data[1]["origin"] == "file"
    told.clear()
    # It is told once, and not where nothing was said of a fault.
    domain.certificate.touch()
    world.pass_time()
    assert told == []
    world.certificates.stop()


def test_what_a_command_has_recorded_while_the_server_began_is_served(world: World) -> None:
    command = Server(world.site)
    command.add(validation.issue(authority(), [ORG]), ORG)
    assert world.seen(ORG) != command.seen(ORG)
    world.certificates.start()
    world.pass_time()
    assert world.seen(ORG) == command.seen(ORG)
    assert world.served == [(ORG,)]
    assert world.asked == [{ORG}]
    entries = len(world.tls.history.of_host(ORG))
    world.reactor.advance(EXPIRY_INTERVAL)
    assert (len(world.served), len(world.tls.history.of_host(ORG))) == (1, entries)
    world.certificates.stop()


def test_the_list_of_the_own_authority_is_followed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command has revoked something: /ca.crl of all processes has it."""
    one = make_ca(tmp_path / "ca")
    world.site.tls = ['private_ca = "ca/ca.pem"']
    world.tls.restart()
    world.certificates = world.make()
    worker = TlsPolicy(world.tls.config, quiet, material=world.tls.policy.material)
    before = world.tls.policy.private_ca
    assert before is not None
    world.certificates.start()
    world.pass_time()
    assert world.served == []
    issue_of(one, "anna@example.test")
    revoke(one, "anna@example.test")
    change: list[Change] = []
    commit = world.tls.policy.commit

    def keep(prepared: Prepared) -> list[Outcome]:
        change.append(world.tls.policy.change(prepared))
        return commit(prepared)

    world.tls.policy.commit = keep  # type: ignore[method-assign]
    world.pass_time()
    assert world.served == [()], "of no host anything has changed"
    [told] = change
    worker.apply(told)
    for policy in (world.tls.policy, worker):
        assert policy.private_ca is not None
        assert policy.private_ca.der == before.der
        assert len(x509.load_der_x509_crl(policy.private_ca.crl)) == 1
    assert len(x509.load_der_x509_crl(before.crl)) == 0
    # Half written it is none, and the certificate is still offered.
    (tmp_path / "ca" / "ca.crl").write_bytes(b"-----BEGIN X509 CRL-----")
    world.pass_time()
    assert world.tls.policy.private_ca is not None
    assert world.tls.policy.private_ca.crl == b""
    # The certificate itself stays, and it is told why.
    lines: list[str] = []
    monkeypatch.setattr(module.log, "warn", lambda sentence, **fields: lines.append(sentence.format(**fields)))
    (tmp_path / "ca" / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----")
    for _ in range(10):
        world.pass_time()
    assert world.tls.policy.private_ca.der == before.der
    assert any("[tls] private_ca: refused: ends within a certificate" in line for line in lines)
    world.certificates.stop()


def test_a_reload_that_takes_nothing_up_leaves_no_change_unseen(world: World) -> None:
    world.certificates.start()
    before = world.seen(TEST)
    world.site.renew("example.test")
    world.tls.policy.prepare(world.tls.config)
    Deferred.fromCoroutine(world.certificates.reloaded(whole=False))
    for _ in range(100):
        world.reactor.advance(0.1)
    assert world.seen(TEST) != before
    world.certificates.stop()


@pytest.fixture
def clients(world: World) -> ClientAuthority:
    """Of both domains, of which one names no files with a certificate."""
    clients = ClientAuthority()
    (world.site.directory / "clients.pem").write_bytes(clients.pem)
    (world.site.directory / "clients.crl").write_bytes(clients.crl())
    for domain in ("example.test", "example.org"):
        world.site.of_domain[domain] = [
            'client_certificates = "required"',
            'client_ca = "clients.pem"',
            'client_crl = "clients.crl"',
        ]
    world.tls.restart()
    world.certificates = world.make()
    world.certificates.start()
    return clients


def test_a_revocation_counts_without_a_reload(world: World, clients: ClientAuthority) -> None:
    world.add()
    world.served.clear()
    world.asked.clear()
    shown = clients.issue()
    client = Client(certificate=shown)
    before = [world.tls.history.of_host(host) for host in (TEST, ORG)]
    for host in (TEST, ORG):
        client.connect(world.tls.policy, host.encode())
    (world.site.directory / "clients.crl").write_bytes(b"half")
    world.pass_time()
    for host in (TEST, ORG):
        client.connect(world.tls.policy, host.encode())
    assert [world.tls.origin(host) for host in (TEST, ORG)] == ["last good", "added"]
    world.served.clear()
    clients.revoke(shown[0])
    (world.site.directory / "clients.crl").write_bytes(clients.crl())
    world.pass_time()
    for host in (TEST, ORG):
        with pytest.raises(SSL.Error, match="certificate revoked"):
            client.connect(world.tls.policy, host.encode())
    assert sorted(world.served) == [(ORG,), (TEST,)]
    # No certificate is another one: there is nothing to ask the listeners for, or to go back from.
    assert world.asked == []
    assert before == [world.tls.history.of_host(host) for host in (TEST, ORG)]
    world.certificates.stop()


def test_what_needs_another_base_waits_for_a_reload(world: World, clients: ClientAuthority) -> None:
    world.certificates.stop()
    beside = ['second_certificate = "rsa.pem"', 'second_key = "rsa.key"']
    world.site.of_domain["example.test"] = beside
    world.site.put("rsa", *rsa_pair([TEST], 2048))
    world.tls.restart()
    (world.site.directory / "clients.pem").write_bytes(b"bad")
    world.site.of_domain["example.test"] = [*beside, 'client_certificates = "required"', 'client_ca = "clients.pem"']
    world.tls.config = world.site.config()
    world.tls.policy.reload(world.tls.config)
    (world.site.directory / "clients.pem").write_bytes(clients.pem)
    world.site.renew("example.test")
    second = rsa_pair([TEST], 2048)
    world.site.put("rsa", *second)
    changed = world.tls.take(TEST)
    assert changed.lines[0].endswith("; has changed: the new terms apply after `mailserver reload`")
    for_rsa = Client(SSL.TLS1_2_VERSION, b"ECDHE-RSA-AES128-GCM-SHA256")
    assert for_rsa.connect(world.tls.policy, TEST.encode()).fingerprint == fingerprint(second)
    assert Client().connect(world.tls.policy, TEST.encode()).client is None
