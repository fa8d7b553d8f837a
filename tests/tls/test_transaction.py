"""Certificates as transactions: what is judged, recorded, served, and taken back, each host by itself."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from mailserver.config.model import Config
from mailserver.tls.ca import authority as making
from mailserver.tls.ca import private_ca
from mailserver.tls.changes.activation import Activation
from mailserver.tls.changes.transaction import ChangeRefused, RecordedChange, Transaction
from mailserver.tls.serving import context_builder, validation
from mailserver.tls.serving import policy as policy_module
from mailserver.tls.serving.policy import Prepared, TlsPolicy
from mailserver.tls.state.history import CannotRecord, History
from tests.tls.site import Client, Site, authority
from tests.tls.test_pair import rsa_pair

TEST, ORG, OTHER = "mail.example.test", "mail.example.org", "imap.example.org"
NOW = dt.datetime.now(dt.UTC)


class Server:
    """What a process does at its start and with each change, without the process."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.lines: list[tuple[str, dict[str, object]]] = []
        self.start()

    def start(self) -> None:
        self.config: Config = self.site.config()
        self.history = History.open(self.config.server.state_dir, self.config.tls.history, self.config.tls.history_days)
        self.activation = Activation(self.history)
        self.policy = TlsPolicy(self.config, self._log, source=self.activation)
        self.activation.record(self.policy.served, "found at the start")

    def _log(self, event: str, /, **fields: object) -> None:
        self.lines.append((event, fields))

    def restart(self) -> None:
        self.history.close()
        self.start()

    def change(self, work: Callable[[Transaction], RecordedChange], now: dt.datetime | None = None) -> RecordedChange:
        changed = work(Transaction(self.activation, self.policy, self.config, now or dt.datetime.now(dt.UTC)))
        self.policy.commit(changed.prepared)
        return changed

    def take(self, *hosts: str) -> RecordedChange:
        return self.change(lambda one: one.take_files(hosts or [TEST]))

    def add(self, pair: tuple[bytes, bytes], *hosts: str) -> RecordedChange:
        return self.change(lambda one: one.offer(hosts, *pair, reason="a test", origin="added"))

    def refused(self, work: Callable[[Transaction], RecordedChange], now: dt.datetime | None = None) -> list[str]:
        before = self.policy.describe(), self.history.of_host(TEST), self.history.of_host(ORG)
        with pytest.raises(ChangeRefused) as caught:
            self.change(work, now)
        assert before == (self.policy.describe(), self.history.of_host(TEST), self.history.of_host(ORG))
        return caught.value.lines

    def refused_offer(self, pair: tuple[bytes, bytes], *hosts: str, now: dt.datetime | None = None) -> list[str]:
        return self.refused(lambda one: one.offer(hosts, *pair, reason="", origin="added"), now)

    def origin(self, host: str) -> str:
        (found,) = [each.origin for each in self.policy.describe() if each.host == host]
        return found

    def seen(self, host: str) -> str:
        return Client().connect(self.policy, host.encode()).fingerprint

    def history_of(self, host: str) -> list[str]:
        return [entry.fingerprint for entry in self.history.of_host(host)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path).add("example.test", [TEST]).add("example.org", [ORG, OTHER])
    site.managed.add("example.org")
    return site


@pytest.fixture
def server(site: Site) -> Server:
    return Server(site)


def issue(*hosts: str, **how: object) -> tuple[bytes, bytes]:
    return validation.issue(authority(), hosts or (ORG, OTHER), **how)  # type: ignore[arg-type]


def serial_of(pair: tuple[bytes, bytes]) -> int:
    return x509.load_pem_x509_certificate(pair[0]).serial_number


def fingerprint(pair: tuple[bytes, bytes]) -> str:
    from mailserver.tls.keypair.pair import parse_pair

    return parse_pair(*pair).fingerprint


class TestStart:
    """A server always starts."""

    def test_without_a_certificate_it_makes_one_and_keeps_it(self, server: Server) -> None:
        assert server.origin(ORG) == "self-signed"
        assert server.seen(ORG) == server.seen(OTHER)
        told = [str(fields["warning"]) for _event, fields in server.lines if fields.get("host") == ORG]
        assert "is self-signed" in told[0]
        before = server.seen(ORG)
        server.restart()
        assert server.seen(ORG) == before
        assert server.origin(TEST) == "file"

    def test_one_that_ends_soon_is_made_anew(self, server: Server) -> None:
        before = server.seen(ORG)
        later = NOW + dt.timedelta(days=394)
        activation = Activation(server.history, now=lambda: later)
        policy = TlsPolicy(server.config, server._log, source=activation, now=lambda: later)
        assert Client().connect(policy, ORG.encode()).fingerprint != before

    @pytest.mark.parametrize("fault", ["missing", "half written", "another's key", "of another host"])
    def test_with_bad_files_it_serves_the_last_good_one(self, site: Site, server: Server, fault: str) -> None:
        before = server.seen(TEST)
        break_files(site, fault)
        server.restart()
        assert server.seen(TEST) == before
        assert server.origin(TEST) == "last good"
        told = [str(fields["warning"]) for _event, fields in server.lines if fields.get("host") == TEST]
        assert "last good" in told[-1]
        site.renew("example.test")
        assert "taken up" in server.take().lines[0]
        assert server.origin(TEST) == "file"
        assert server.seen(TEST) != before

    @pytest.mark.parametrize("fault", ["missing", "half written", "another's key", "of another host"])
    def test_with_bad_files_and_no_history_it_makes_one(self, site: Site, fault: str) -> None:
        break_files(site, fault)
        server = Server(site)
        assert server.origin(TEST) == "self-signed"
        assert server.seen(TEST) != server.seen(ORG)
        site.renew("example.test")
        server.take()
        assert server.origin(TEST) == "file"

    def test_one_host_of_a_certificate_that_is_not_covered_leaves_the_others(self, site: Site) -> None:
        site.managed.clear()
        site.renew("example.org", [ORG])
        server = Server(site)
        assert (server.origin(ORG), server.origin(OTHER)) == ("file", "self-signed")

    def test_without_a_state_directory_it_serves_the_files(self, site: Site) -> None:
        (site.directory / "state").write_text("")
        server = Server(site)
        assert server.history.problem
        assert server.origin(TEST) == "file"
        assert "cannot be used" in server.refused_offer(issue(), ORG)[0]
        site.renew("example.test")
        assert server.take().hosts == (TEST,)

    def test_settings_that_openssl_does_not_know_are_no_matter_of_certificates(self, site: Site) -> None:
        site.tls.append('groups = "nonsense"')
        with pytest.raises(policy_module.CannotServe):
            Server(site)


def break_files(site: Site, fault: str) -> None:
    name = "example.test"
    if fault == "missing":
        site.certificate(name).unlink()
    elif fault == "half written":
        octets = site.certificate(name).read_bytes()
        site.put(name, octets[: len(octets) // 2])
    elif fault == "another's key":
        site.put(name, key=issue(TEST)[1])
    else:
        site.renew(name, ["other.example.test"])


class TestSecondPair:
    """RSA beside ECDSA."""

    @pytest.fixture
    def both(self, site: Site) -> Site:
        site.of_domain["example.test"] = ['second_certificate = "rsa.pem"', 'second_key = "rsa.key"']
        self.renew(site)
        return site

    @staticmethod
    def renew(site: Site) -> None:
        site.put("rsa", *rsa_pair([TEST], 2048))

    def test_both_are_recorded_and_come_back(self, both: Site) -> None:
        server = Server(both)
        first = server.policy.served.by_host[TEST].pairs
        self.renew(both)
        assert server.take().hosts == (TEST,)
        assert server.policy.served.by_host[TEST].pairs != first
        server.change(lambda one: one.roll_back(TEST))
        server.restart()
        assert server.origin(TEST) == "rolled back"
        assert server.policy.served.by_host[TEST].pairs == first

    def test_a_bad_second_one_does_not_keep_the_first_from_a_start(self, both: Site) -> None:
        both.put("rsa", b"not PEM")
        server = Server(both)
        assert server.origin(TEST) == "file"
        assert len(server.policy.served.by_host[TEST].pairs) == 1
        self.renew(both)
        assert server.take().hosts == (TEST,)
        assert len(server.policy.served.by_host[TEST].pairs) == 2


class TestFiles:
    """What changes on disk."""

    def test_a_renewal_is_recorded_and_served_and_no_other_context_is_made(
        self, site: Site, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[object] = []
        make = context_builder.make_context
        monkeypatch.setattr(context_builder, "make_context", lambda *given: made.append(given) or make(*given))
        before = server.seen(TEST)
        before_it = int(time.time())
        site.renew("example.test")
        changed = server.take()
        assert changed.whole
        assert changed.hosts == (TEST,)
        assert len(made) == 1
        assert server.history_of(TEST) == [server.seen(TEST), before]
        (entry, _older) = server.history.of_host(TEST)
        assert entry.reason == "the files have changed"
        assert before_it <= entry.time <= time.time()

    def test_the_same_again_is_no_change(self, server: Server) -> None:
        changed = server.take()
        assert (changed.hosts, changed.lines, changed.whole) == ((), (), True)
        assert len(server.history_of(TEST)) == 1

    @pytest.mark.parametrize("fault", ["missing", "half written", "another's key", "of another host"])
    def test_what_cannot_be_served_leaves_the_last_good_one(self, site: Site, server: Server, fault: str) -> None:
        before = server.seen(TEST)
        break_files(site, fault)
        changed = server.take()
        assert not changed.whole
        assert changed.lines[0].startswith(f"{TEST}: refused: ")
        assert server.seen(TEST) == before
        assert server.origin(TEST) == "last good"
        assert len(server.history_of(TEST)) == 1

    def test_a_chain_that_does_not_build_does_not_replace_one_that_does(self, site: Site, server: Server) -> None:
        before = server.seen(TEST)
        certificate, key = issue(TEST)
        site.put("example.test", certificate + issue(TEST)[0], key)
        assert "chain out of order" in server.take().lines[0]
        assert server.seen(TEST) == before

    def test_an_expired_one_does_not_replace_one_that_is_not(self, site: Site, server: Server) -> None:
        before = server.seen(TEST)
        site.renew("example.test", days=1, now=NOW - dt.timedelta(days=9))
        assert "expired" in server.take().lines[0]
        assert server.seen(TEST) == before

    def test_a_full_disk_leaves_the_last_good_one_and_is_tried_again(self, site: Site, server: Server) -> None:
        before = server.seen(TEST)
        pages = next(server.history._connection.execute("PRAGMA page_count"))[0]
        server.history._connection.execute(f"PRAGMA max_page_count = {pages}")

        def fill() -> None:
            nonlocal before
            for _ in range(50):
                before = server.seen(TEST)
                site.renew("example.test")
                server.take()

        with pytest.raises(ChangeRefused) as caught:
            fill()
        assert caught.value.later
        assert "no space is left" in caught.value.lines[0]
        assert server.seen(TEST) == before
        server.history._connection.execute("PRAGMA max_page_count = 100000")
        assert server.take().hosts == (TEST,)
        assert server.seen(TEST) != before

    def test_a_link_that_is_changed_while_it_is_read_counts_for_nothing(
        self, site: Site, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = server.seen(TEST)
        site.renew("example.test")
        from mailserver.tls.changes import activation

        read = activation.read_files

        def read_and_change(*given: object) -> object:
            found = read(*given)  # type: ignore[arg-type]
            other = site.directory / "other.pem"
            other.write_bytes(issue(TEST)[0])
            os.rename(other, site.certificate("example.test"))
            return found

        monkeypatch.setattr(activation, "read_files", read_and_change)
        assert "changed while it was read" in server.take().lines[0]
        assert server.seen(TEST) == before

    def test_a_handshake_that_fails_is_no_change(
        self, site: Site, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.renew("example.test")
        other = server.policy.served.by_host[ORG].context
        prepare = server.policy.prepare_hosts

        def mix_up(config: Config, hosts: list[str]) -> Prepared:
            import attrs

            prepared = prepare(config, hosts)
            by_host = {**prepared.map.by_host, TEST: attrs.evolve(prepared.map.by_host[TEST], context=other)}
            return attrs.evolve(prepared, map=attrs.evolve(prepared.map, by_host=by_host))

        monkeypatch.setattr(server.policy, "prepare_hosts", mix_up)
        assert server.refused(lambda one: one.take_files([TEST])) == [f"{TEST}: a handshake shows another certificate"]


class TestOffer:
    """What the administrator or an authority brings."""

    def test_it_is_served_for_all_hosts_that_it_covers_and_after_a_restart(self, server: Server) -> None:
        pair = issue()
        changed = server.add(pair)
        assert set(changed.hosts) == {ORG, OTHER}
        assert server.seen(ORG) == server.seen(OTHER) == fingerprint(pair)
        server.restart()
        assert server.seen(ORG) == fingerprint(pair)
        assert server.origin(ORG) == "added"
        assert server.origin(TEST) == "file"

    def test_for_one_host_it_leaves_the_other(self, server: Server) -> None:
        before = server.seen(OTHER)
        assert server.add(issue(), ORG).hosts == (ORG,)
        assert server.seen(OTHER) == before

    def test_the_same_again_is_no_change(self, server: Server) -> None:
        pair = issue()
        server.add(pair)
        assert server.add(pair).hosts == ()
        assert len(server.history_of(ORG)) == 2

    def test_what_cannot_be_served_is_told_and_nothing_changes(self, server: Server) -> None:
        certificate, key = issue()
        small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        small_pem = small.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for pair, said in (
            ((certificate[: len(certificate) // 2], key), "ends within a certificate"),
            ((certificate, b"no key"), "key is not a private key in PEM"),
            ((b"", key), "certificate is empty"),
            ((key, certificate), "certificate is a private key"),
            ((certificate, issue()[1]), "key does not belong to the certificate"),
            ((certificate, small_pem), "RSA of 1024 bits"),
            ((certificate + issue()[0], key), "chain out of order"),
            ((certificate + authority()[0] * 100, key), "has 101 certificates in its chain"),
            (issue(days=1, now=NOW - dt.timedelta(days=9)), "expired"),
            (issue(now=NOW + dt.timedelta(days=9)), "is not valid before"),
        ):
            assert said in server.refused_offer(pair, ORG)[0]

    def test_for_hosts_that_cannot_have_it_it_says_which(self, server: Server) -> None:
        lines = server.refused_offer(issue(ORG), ORG, OTHER, TEST, "mail.example.net")
        assert [line.partition(": ")[0] for line in lines] == [OTHER, TEST, "mail.example.net"]
        assert "has files in its [[domain]]" in lines[1]
        assert "covers no host" in server.refused_offer(issue("mail.example.net"))[0]

    def test_a_chain_of_an_authority_builds(self, server: Server) -> None:
        certificate, key = issue()
        assert server.add((certificate + authority()[0], key)).whole

    def test_a_second_one_is_served_beside_it_and_comes_back(self, server: Server) -> None:
        first, second = issue(), rsa_pair([ORG, OTHER], 2048)
        shown = {"ECDSA": fingerprint(first), "RSA": fingerprint(second)}

        def seen() -> dict[str, str]:
            return {
                kind: Client(SSL.TLS1_2_VERSION, f"ECDHE-{kind}-AES128-GCM-SHA256".encode())
                .connect(server.policy, ORG.encode())
                .fingerprint
                for kind in ("ECDSA", "RSA")
            }

        def add(second: tuple[bytes, bytes]) -> Callable[[Transaction], RecordedChange]:
            return lambda one: one.offer([], *first, second=second, reason="both", origin="added")

        assert set(server.change(add(second)).hosts) == {ORG, OTHER}
        assert seen() == shown
        assert server.change(add(second)).hosts == ()
        server.restart()
        assert seen() == shown
        server.add(issue())
        server.change(lambda one: one.roll_back(ORG))
        assert seen() == shown
        for bad, said in (
            (issue(), "second_certificate has a key of the first one's type, ECDSA"),
            (rsa_pair([ORG], 2048), f"{OTHER}: is not covered by second_certificate, which names {ORG}"),
            ((b"", b""), "second_certificate is empty: it must hold the certificate"),
            (
                (second[0], rsa_pair([ORG], 2048)[1]),
                "second_key does not belong to the certificate: put both files of the same renewal there",
            ),
        ):
            assert server.refused(add(bad))[0] == said

    def test_keys_of_other_kinds_are_refused(self, server: Server) -> None:
        key = ec.generate_private_key(ec.SECP521R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        assert "clients know P-256 and P-384" in server.refused_offer((issue()[0], pem), ORG)[0]


class TestBack:
    """One command goes back."""

    def test_added_ones(self, server: Server) -> None:
        first, second = issue(), issue()
        server.add(first)
        server.add(second)
        changed = server.change(lambda one: one.roll_back(ORG))
        assert changed.hosts == (ORG,)
        assert server.seen(ORG) == fingerprint(first)
        assert server.seen(OTHER) == fingerprint(second)
        server.restart()
        assert server.seen(ORG) == fingerprint(first)
        entry = server.history.current(ORG)
        assert entry is not None
        assert entry.reason.startswith("rolled back to ")
        # To a self-signed one it does not go.
        assert "no earlier certificate" in server.refused(lambda one: one.roll_back(ORG))[0]

    def test_files_are_passed_over_until_they_change(self, site: Site, server: Server) -> None:
        first = server.seen(TEST)
        site.renew("example.test")
        server.take()
        server.change(lambda one: one.roll_back(TEST))
        assert (server.seen(TEST), server.origin(TEST)) == (first, "rolled back")
        server.take()
        server.policy.reload(server.config)
        server.restart()
        assert (server.seen(TEST), server.origin(TEST)) == (first, "rolled back")
        site.renew("example.test")
        server.take()
        assert server.origin(TEST) == "file"
        assert server.seen(TEST) != first

    def test_files_again(self, site: Site, server: Server) -> None:
        site.renew("example.test")
        server.take()
        second = server.seen(TEST)
        server.change(lambda one: one.roll_back(TEST))
        server.change(lambda one: one.activate(TEST, None))
        assert (server.seen(TEST), server.origin(TEST)) == (second, "file")
        assert "names no files" in server.refused(lambda one: one.activate(ORG, None))[0]

    def test_any_activation_again(self, server: Server) -> None:
        pairs = [issue() for _ in range(3)]
        for pair in pairs:
            server.add(pair)
        (number,) = [entry.id for entry in server.history.of_host(ORG) if entry.fingerprint == fingerprint(pairs[0])]
        server.change(lambda one: one.activate(ORG, number))
        assert server.seen(ORG) == fingerprint(pairs[0])
        assert "has no activation 999" in server.refused(lambda one: one.activate(ORG, 999))[0]
        assert "is no host" in server.refused(lambda one: one.activate("mail.example.net", 1))[0]

    def test_a_history_that_cannot_be_read_is_told(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for _ in range(2):
            server.add(issue())
        for question in ("pair", "is_revoked"):
            with monkeypatch.context() as patch:
                patch.setattr(History, question, Mock(side_effect=CannotRecord("the disk is gone")))
                with pytest.raises(ChangeRefused, match="the disk is gone") as caught:
                    server.change(lambda one: one.roll_back(ORG))
            assert caught.value.later

    def test_not_to_what_has_expired(self, server: Server) -> None:
        server.add(issue(days=20))
        server.add(issue())
        later = NOW + dt.timedelta(days=30)
        assert "expired" in server.refused(lambda one: one.roll_back(ORG), later)[0]

    def test_not_to_what_its_authority_has_revoked(self, server: Server) -> None:
        pairs = [issue() for _ in range(3)]
        for pair in pairs:
            server.add(pair)
        revoked = server.history.of_host(ORG)[1]
        with server.history.transaction():
            server.history.revoke(revoked.fingerprint)
        assert "revoked by its authority" in server.refused(lambda one: one.activate(ORG, revoked.id))[0]
        server.change(lambda one: one.roll_back(ORG))
        assert server.seen(ORG) == fingerprint(pairs[0])

    def test_not_to_what_the_own_authority_has_revoked_nor_is_that_added(self, site: Site, server: Server) -> None:
        private_ca.create(site.directory / "ca", "Ours", key_type="p256", days=3650, only=[], passphrase=None, now=NOW)
        one = private_ca.open_ca(site.directory / "ca")
        site.tls = ['private_ca = "ca/ca.pem"']
        server.restart()
        pairs = []
        for kind in ("p256", "p256", "rsa2048"):
            key = making.make_key(kind)
            made = one.sign(one.unlock(None), key.public_key(), [ORG], "server", days=300, now=NOW)
            pairs.append((making.certificate_pem(made), making.key_pem(key)))
        beside = pairs.pop()
        server.change(lambda one: one.offer([ORG], *issue(), second=beside, reason="both", origin="added"))
        for pair in pairs:
            server.add(pair, ORG)
        _, first, both, *_ = server.history.of_host(ORG)
        records = one.records()
        serials = [f"{serial_of(pair):x}" for pair in (pairs[0], beside)]
        bad = [each for each in records.find(ORG) if each.serial in serials]
        records.close()
        one.revoke(one.unlock(None), bad, "keyCompromise", NOW)
        said = "certificate was revoked by its authority"
        assert server.refused(lambda one: one.roll_back(ORG)) == [f"{ORG}: activation {first.id}: {said}"]
        second = f"{ORG}: activation {both.id}: second_{said}"
        assert server.refused(lambda one: one.activate(ORG, both.id)) == [second]
        assert server.refused_offer(pairs[0], ORG) == [said]
        assert not server.add(pairs[1], ORG).hosts
        fault = {ORG: "imaps at 127.0.0.1 shows another certificate"}
        assert server.refused(lambda one: one.go_back(fault)) == [f"{ORG}: activation {first.id}: {said}"]
        assert server.seen(ORG) == fingerprint(pairs[1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(x509, "random_serial_number", lambda: serial_of(pairs[0]))
            other = issue()
        assert server.add(other, ORG).hosts == (ORG,), "the list is not about another authority's"

    def test_what_the_listeners_do_not_show_is_taken_back(self, site: Site, server: Server) -> None:
        first = server.seen(TEST)
        site.renew("example.test")
        server.take()
        server.change(lambda one: one.go_back({TEST: "imaps at 127.0.0.1 shows another certificate"}))
        assert server.seen(TEST) == first
        entry = server.history.current(TEST)
        assert entry is not None
        assert "imaps at 127.0.0.1 shows another certificate" in entry.reason
        assert server.take().hosts == ()


def test_another_certificate_of_a_key_that_is_served(server: Server) -> None:
    """A renewal brings no key."""
    first, other = issue(ORG, days=30), issue(ORG)
    server.add(first, ORG)
    assert server.refused_offer((other[0], b""), ORG) == [
        "key must be given: no host without files is served with the one of this certificate"
    ]
    assert server.refused_offer((b"nonsense", b""), ORG)
    again = signed_again(first[1])
    server.add((again, b""), ORG)
    served = server.policy.served.by_host[ORG].pair
    assert (served.chain_pem, served.key_pem.reveal()) == (again, first[1])
    # Of two, the one.
    of_rsa = rsa_pair([ORG], 2048)
    server.change(lambda one: one.offer([ORG], again, b"", second=of_rsa, reason="", origin="added"))
    server.change(lambda one: one.offer([ORG], first[0], b"", second=(of_rsa[0], b""), reason="", origin="added"))
    assert [pair.chain_pem for pair in server.policy.served.by_host[ORG].pairs] == [first[0], of_rsa[0]]


def signed_again(key_pem: bytes) -> bytes:
    """By the authority of the tests."""
    key, signer = (serialization.load_pem_private_key(each, None) for each in (key_pem, authority()[1]))
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    ours = making.Authority(x509.load_pem_x509_certificate(authority()[0]), signer)
    made = making.sign(ours, key.public_key(), making.common_name(ORG), making.alternatives([ORG]), "server")
    return making.certificate_pem(made)
