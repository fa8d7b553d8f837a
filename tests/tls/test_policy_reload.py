"""Certificates that change while they are served: what is taken up, and what stays."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from OpenSSL import SSL

from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import ORG, TEST, Client, Site, client_hello


class TestReload:
    def test_a_renewed_pair_is_taken_up(self, policy: TlsPolicy, site: Site) -> None:
        before = Client().connect(policy, b"mail.example.test").fingerprint
        site.renew("example.test")
        outcomes = {outcome.name: outcome.state for outcome in policy.reload(site.config())}
        assert outcomes == {
            "mail.example.test": "taken up",
            "*.example.org": "unchanged",
            "mail.example.org": "unchanged",
        }
        assert Client().connect(policy, b"mail.example.test").fingerprint != before

    @pytest.mark.parametrize("spoil", ["certificate", "key", "mixed", "gone", "expired", "names", "garbage"])
    def test_a_bad_pair_keeps_the_last_good_one_for_that_name_alone(
        self, policy: TlsPolicy, site: Site, spoil: str
    ) -> None:
        before = Client().connect(policy, b"mail.example.test").fingerprint
        org = Client().connect(policy, b"mail.example.org").fingerprint
        site.renew("example.org")
        match spoil:
            case "certificate":
                site.put("example.test", certificate=b"")
            case "key":
                site.put("example.test", key=b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
            case "mixed":
                site.put("example.test", certificate=site.certificate("example.org").read_bytes())
            case "gone":
                site.key("example.test").unlink()
            case "expired":
                site.renew("example.test", days=1, now=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
            case "names":
                site.renew("example.test", ["other.example.test"])
            case "garbage":
                certificate = site.certificate("example.test").read_bytes()
                site.put("example.test", certificate=certificate[:300] + b"\n-----END CERTIFICATE-----\n")
        outcomes = {outcome.name: outcome for outcome in policy.reload(site.config())}
        assert outcomes["mail.example.test"].state == "refused"
        assert outcomes["mail.example.test"].why
        assert outcomes["mail.example.org"].state == "taken up"
        assert Client().connect(policy, b"mail.example.test").fingerprint == before
        assert Client().connect(policy, None).fingerprint == before
        assert Client().connect(policy, b"mail.example.org").fingerprint != org
        # Repaired, it is taken up again.
        site.renew("example.test")
        assert {outcome.state for outcome in policy.reload(site.config())} == {"taken up", "unchanged"}
        assert Client().connect(policy, b"mail.example.test").fingerprint != before

    def test_a_host_that_the_new_certificate_lacks_keeps_the_old_one(self, policy: TlsPolicy, site: Site) -> None:
        before = Client().connect(policy, b"imap.example.org").fingerprint
        site.renew("example.org", ["mail.example.org"])
        states = {outcome.name: outcome.state for outcome in policy.reload(site.config())}
        assert (states["*.example.org"], states["mail.example.org"]) == ("refused", "taken up")
        assert Client().connect(policy, b"imap.example.org").fingerprint == before
        assert Client().connect(policy, b"mail.example.org").names == ("mail.example.org",)

    def test_a_new_domain_with_a_bad_pair_is_refused_alone(self, policy: TlsPolicy, site: Site) -> None:
        site.add("example.net", ["mail.example.net"])
        site.put("example.net", key=b"")
        outcomes = {outcome.name: outcome.state for outcome in policy.reload(site.config())}
        assert outcomes["mail.example.net"] == "refused"
        assert Client().connect(policy, b"mail.example.net").names == TEST
        assert Client().connect(policy, b"mail.example.org").names == ORG

    def test_a_domain_added_and_removed(self, policy: TlsPolicy, site: Site) -> None:
        site.add("example.net", ["mail.example.net"])
        policy.reload(site.config())
        assert Client().connect(policy, b"mail.example.net").names == ("mail.example.net",)
        del site.domains["example.net"]
        assert "mail.example.net: removed" in map(str, policy.reload(site.config()))
        assert Client().connect(policy, b"mail.example.net").names == TEST
        assert [line.host for line in policy.describe()] == ["*.example.org", "mail.example.org", "mail.example.test"]

    def test_nothing_changes_before_the_commit(self, policy: TlsPolicy, site: Site) -> None:
        before = Client().connect(policy, b"mail.example.test").fingerprint
        site.renew("example.test")
        site.tls = ['minimum_version = "1.3"']
        with ThreadPoolExecutor(1) as pool:
            prepared = pool.submit(policy.prepare, site.config()).result(20)
        seen = Client(SSL.TLS1_2_VERSION).connect(policy, b"mail.example.test")
        assert seen.fingerprint == before
        assert {outcome.state for outcome in policy.commit(prepared)} == {"taken up", "unchanged"}
        assert Client().connect(policy, b"mail.example.test").fingerprint != before

    def test_a_bad_default_keeps_the_last_one(self, policy: TlsPolicy, site: Site) -> None:
        site.add("example.net", ["mail.example.net"])
        site.put("example.net", key=b"")
        site.tls = ['default = "mail.example.net"']
        outcomes = {outcome.name: outcome.state for outcome in policy.reload(site.config())}
        assert outcomes["[tls] default"] == "refused"
        assert Client().connect(policy, None).names == TEST

    def test_bad_settings_are_refused_and_certificates_taken_up(self, policy: TlsPolicy, site: Site) -> None:
        before = Client().connect(policy, b"mail.example.test").fingerprint
        site.renew("example.test")
        site.tls = ['groups = "P-999"', 'unknown_name = "refuse"']
        outcomes = policy.reload(site.config())
        assert (outcomes[0].name, outcomes[0].state) == ("[tls]", "refused")
        assert Client().connect(policy, b"mail.example.test").fingerprint != before
        # The key that has nothing to do with the fault works.
        with pytest.raises(SSL.Error, match="unrecognized name"):
            Client().connect(policy, b"elsewhere.example.net")

    def test_new_suites_hold_for_unchanged_certificates(self, policy: TlsPolicy, site: Site) -> None:
        client = Client(SSL.TLS1_2_VERSION, b"ECDHE-ECDSA-AES128-GCM-SHA256")
        client.connect(policy, b"mail.example.org")
        site.tls = ['ciphers = "ECDHE+CHACHA20"']
        assert {outcome.state for outcome in policy.reload(site.config())} == {"taken up", "unchanged"}
        for name in (b"mail.example.org", b"mail.example.test", None):
            with pytest.raises(SSL.Error):
                client.connect(policy, name)
            assert Client(SSL.TLS1_2_VERSION, b"ECDHE+CHACHA20").connect(policy, name).version == "TLSv1.2"

    def test_a_base_is_kept_for_the_handshakes_begun_on_it(self, policy: TlsPolicy, site: Site) -> None:
        """Collected inside its own callback, where the connection leaves it, it would crash the process."""
        begun = policy.serverConnectionForTLS(None)
        base = weakref.ref(begun.get_context())
        site.tls = ['groups = "X25519"']
        policy.reload(site.config())
        begun.set_accept_state()
        begun.bio_write(client_hello(b"mail.example.org"))
        with pytest.raises(SSL.WantReadError):
            begun.do_handshake()
        gc.collect()
        assert begun.get_context() is not base()
        assert base() is not None

    def test_swaps_during_handshakes(self, policy: TlsPolicy, site: Site) -> None:
        """Every half-way point of a handshake, with the contexts swapped and the old ones collected."""
        client = Client()
        for turn in range(12):
            ours = SSL.Connection(client.context, None)
            ours.set_connect_state()
            ours.set_tlsext_host_name(b"mail.example.test")
            theirs = policy.serverConnectionForTLS(None)
            theirs.set_accept_state()
            for step in range(6):
                if step == turn % 6:
                    site.renew("example.test")
                    site.tls = [f'groups = "{("X25519", "X25519:P-256")[turn % 2]}"'] if turn > 5 else []
                    policy.reload(site.config())
                    gc.collect()
                for side, other in ((ours, theirs), (theirs, ours)):
                    with contextlib.suppress(SSL.WantReadError):
                        side.do_handshake()
                    with contextlib.suppress(SSL.WantReadError):
                        other.bio_write(side.bio_read(65536))
            theirs.send(b"still here")
            ours.bio_write(theirs.bio_read(65536))
            assert ours.recv(100) == b"still here"
