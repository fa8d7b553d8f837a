"""Certificates from Pebble, a real ACME authority whose validations are switched on."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import pwd
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509

from mailserver.config.load import load
from mailserver.tls.acme import acme_state
from mailserver.tls.acme.child import AcmeError, Child
from mailserver.tls.acme.order import Order
from mailserver.tls.acme.schedule import CurrentCertificate
from mailserver.tls.keypair.pair import parse_pair
from mailserver.tls.serving import validation
from mailserver.types import Secret
from tests.cli.test_administration import documented
from tests.interop.pebble import EAB_ID, EAB_KEY, KEY, KEY_NAME, Pebble, UpdatedZone
from tests.live.conftest import no_bug
from tests.live.test_user import USER, give, wrapper
from tests.server import Server
from tests.tls.site import Site

MAIL, FAILING, WILD = "mail.acme.test", "fails.acme.test", "*.wild.acme.test"


def served(server: Server, host: str) -> x509.Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port("imaps")), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        octets = secured.getpeercert(binary_form=True)
    assert octets is not None
    return x509.load_der_x509_certificate(octets)


def by_pebble(server: Server, host: str) -> bool:
    return "Pebble" in served(server, host).issuer.rfc4514_string()


def command(server: Server, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return server.run_cli(*words, "--config", str(server.config), check=check)


def without_orders(server: Server, *words: str) -> str:
    """A command that waits for no order: on a slow machine the host that fails may be asked for just then."""
    while (
        done := command(server, *words, check=False)
    ).returncode and "orders signed with the account's key are running" in done.stderr:
        time.sleep(0.2)
    assert done.returncode == 0, done.stderr
    return done.stdout


def status(server: Server) -> dict[str, Any]:
    rows = json.loads(command(server, "acme", "status", "--json", check=False).stdout)
    assert all(row.keys() == documented()["mailserver acme status"] for row in rows)
    return {row["host"]: row for row in rows}


def until(condition: Callable[[], bool], server: Server, pebble: Pebble, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, server.log[-3000:] + pebble.log[-3000:]
        time.sleep(0.3)


def account_key(server: Server) -> Secret:
    return acme_state.account_key(server.dir / "state", config_of(server).acme.directory)


def config_of(server: Server) -> Any:
    config, problems = load(server.config)
    assert config is not None, problems
    return config


def domain(hosts: list[str], more: str = "") -> str:
    return f'\n[[domain]]\nname = "acme.test"\nhosts = {json.dumps(hosts)}\nacme = true\n{more}'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Pebble]]:
    """Two workers of another user below a master that is root, where this is root."""
    with tempfile.TemporaryDirectory(prefix="mailserver-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        as_root = os.getuid() == 0
        edit = {'user = "root"': f'user = "{USER}"'} if as_root else {}
        server = Server(directory / "server", edit=edit, workers=2)
        with Pebble(directory / "pebble", server.port("http"), environment={"PEBBLE_WFE_NONCEREJECT": "20"}) as pebble:
            pebble.tell_names("add-a", host=FAILING, addresses=["127.0.0.77"])  # nothing listens there
            more = f'[acme.dns]\nhook = ["{pebble.hook()}"]\nwait = 0.1\n{pebble.resolver}'
            server.config.write_text(server.config.read_text() + domain([FAILING, MAIL, WILD]) + pebble.table(more))
            if as_root:
                give(server.dir, "mail", "users")
                (server.dir / "run").mkdir(exist_ok=True)
                server.wrapper = wrapper(directory)
            with server:
                yield server, pebble
            no_bug(server.log)


def test_hosts_get_certificates_and_one_that_fails_delays_none(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, MAIL) and by_pebble(server, "a.wild.acme.test"), server, pebble)
    until(lambda: status(server)[FAILING]["failures"] > 0, server, pebble)
    rows = status(server)
    assert [rows[host]["failures"] for host in (MAIL, WILD)] == [0, 0]
    life = 90 * 86400
    for host in (MAIL, WILD):
        # Pebble suggests two days around two thirds of a life (RFC 9773), and we take a moment by chance.
        def off(host: str = host) -> float:
            return abs(float(status(server)[host]["next"]) - (rows[host]["not_after"] - life / 3))

        until(lambda off=off: off() > 5, server, pebble)  # type: ignore[misc]
        assert off() <= 86400 + 5
    assert "could not verify" in rows[FAILING]["error"]
    assert rows[FAILING]["next"] >= rows[FAILING]["tried"] + 300
    assert rows[FAILING]["self_signed"]
    told = command(server, "status")
    assert f"{FAILING}: failed on " in told.stderr
    assert any(line.split()[0] == MAIL and "acme" in line.split() for line in told.stdout.splitlines() if line)


def test_the_record_is_made_and_removed_by_the_services_user(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, "a.wild.acme.test"), server, pebble)
    user = USER if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    record = "_acme-challenge.wild.acme.test"
    # The process that has the account's key is root's to look into alone, though it is the user's.
    assert pebble.hook_log[:2] == [f"{user} 0 add {record}", f"{user} 0 remove {record}"]


def test_the_state_is_its_owners_alone(running: tuple[Server, Pebble]) -> None:
    server, _pebble = running
    state = server.dir / "state"
    assert (state / "acme.sqlite").stat().st_mode & 0o777 == 0o600
    assert (state / "acme.sqlite").stat().st_uid == state.stat().st_uid == os.getuid()


def test_a_renewal_at_command_is_served_and_drops_no_connection(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, MAIL), server, pebble)
    before = served(server, MAIL).serial_number
    with socket.create_connection(("127.0.0.1", server.port("imap")), timeout=30) as open_one:
        assert open_one.recv(4096).startswith(b"* OK")
        done = command(server, "acme", "renew", MAIL)
        assert f"{MAIL}: until " in done.stdout
        assert served(server, MAIL).serial_number != before
        open_one.sendall(b"a NOOP\r\n")
        assert b"a OK" in open_one.recv(4096)
    rows = command(server, "cert", "history", MAIL).stdout.splitlines()
    assert sum("acme" in row.split() for row in rows) == 2
    assert "is no host of" in command(server, "acme", "renew", "mail.example.test", check=False).stderr


def test_an_authority_that_is_down_leaves_all_as_it_is(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, MAIL), server, pebble)
    before = served(server, MAIL).serial_number
    pebble.end()
    try:
        done = command(server, "acme", "renew", MAIL, check=False)
    finally:
        pebble.begin()
    assert done.returncode == 1
    assert f"the authority cannot be reached: 127.0.0.1:{pebble.port}: Connection refused" in done.stdout
    assert served(server, MAIL).serial_number == before
    # It has forgotten all accounts meanwhile: one is made anew with the same key.
    assert command(server, "acme", "renew", MAIL).returncode == 0
    assert served(server, MAIL).serial_number != before
    assert status(server)[MAIL]["failures"] == 0


def test_a_reload_gives_all_workers_another_account_and_more_hosts(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, MAIL), server, pebble)
    # Another address is another authority, as far as the server knows.
    server.replace(pebble.directory_url, f"{pebble.directory_url}?another")
    late = '\n[[domain]]\nname = "late.test"\nhosts = ["late.acme.test"]\nacme = true\n'
    server.config.write_text(server.config.read_text() + late)
    command(server, "reload")
    until(lambda: by_pebble(server, "late.acme.test"), server, pebble)


def test_a_page_below_a_web_root(tmp_path: Path) -> None:
    """Of another web server; and without it the authority's word of what it has found."""
    site = Site(tmp_path).add("acme.test", [MAIL])
    site.managed.add("acme.test")
    site.of_domain["acme.test"] = ["acme = true"]
    root = tmp_path / "pages"
    root.mkdir()
    pages = functools.partial(SimpleHTTPRequestHandler, directory=str(root))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), pages) as web,
        Pebble(tmp_path / "pebble", web.server_address[1]) as pebble,
    ):
        threading.Thread(target=web.serve_forever, daemon=True).start()
        try:
            site.more = pebble.table(f'webroot = "{root}"\n')
            order = Order(site.config(), CurrentCertificate(MAIL, 0, 0, self_signed=True))
            found = order.obtain()
            # Until its certificate was judged, an order is gone on with: it costs the authority no other.
            assert Order(site.config(), CurrentCertificate(MAIL, 0, 0, self_signed=True)).obtain() == found
            order.close()
            assert parse_pair(found.chain_pem, found.key_pem.reveal()).names == (MAIL,)
            assert list(root.rglob("*")) == [root / ".well-known", root / ".well-known/acme-challenge"]
            site.more = pebble.table(f'webroot = "{tmp_path / "elsewhere"}"\n')
            (tmp_path / "elsewhere").mkdir()
            with pytest.raises(AcmeError, match=f"could not verify {MAIL}: .*404"):
                Order(site.config(), CurrentCertificate(MAIL, 0, 0, self_signed=True)).obtain()
            site.more = pebble.table().replace(str(pebble.ca_file), str(site.directory / "other.pem"))
            (tmp_path / "other.pem").write_bytes(validation.make_ca("Another")[0])
            site.more += f'webroot = "{root}"\n'
            with pytest.raises(AcmeError, match=r"the certificate of 127.0.0.1:\d+ is not trusted"):
                Order(site.config(), CurrentCertificate(MAIL, 0, 0, self_signed=True)).obtain()
        finally:
            web.shutdown()


def test_records_by_dynamic_update_for_a_bound_account_and_a_renewal_in_time(tmp_path: Path) -> None:
    """One process; a certificate that is two thirds through its life is renewed without a word."""
    server = Server(tmp_path / "server", workers=0)
    with Pebble(tmp_path / "pebble", 1, eab=True) as pebble, UpdatedZone(pebble) as zone:
        (tmp_path / "tsig").write_text(f"{KEY}\n")
        (tmp_path / "eab").write_text(f"{EAB_KEY}\n")
        table = pebble.table(
            f'challenge = "dns-01"\nkey_type = "rsa"\neab_key_id = "{EAB_ID}"\neab_key_file = "{tmp_path}/eab"\n'
            f'[acme.dns]\nserver = "127.0.0.1"\nport = {zone.port}\nwait = 0.1\n{pebble.resolver}'
            f'key_name = "{KEY_NAME}"\nkey_file = "{tmp_path}/tsig"\n'
        )
        site = '[[domain.site]]\nhosts = ["autoconfig.acme.test"]\nacme = true\n'
        server.config.write_text(server.config.read_text() + domain([MAIL], site) + table)
        old = validation.issue(
            validation.make_ca("Old"), [MAIL], days=90, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=61)
        )
        for name, octets in zip(("old.pem", "old.key"), old, strict=True):
            (tmp_path / name).write_bytes(octets)
        pair = ["--certificate", str(tmp_path / "old.pem"), "--key", str(tmp_path / "old.key")]
        command(server, "cert", "add", MAIL, *pair)
        with server:
            hosts = (MAIL, "autoconfig.acme.test")
            until(lambda: all(by_pebble(server, host) for host in hosts), server, pebble)
            assert served(server, MAIL).public_key().key_size == 2048
            until(lambda: all(("remove", f"_acme-challenge.{host}.") in zone.changes for host in hosts), server, pebble)
            # A key that the name server does not know is refused, and told.
            (tmp_path / "tsig").write_text("d3Jvbmcga2V5IG9mIHRoZSB0ZXN0cw==\n")
            done = command(server, "acme", "renew", MAIL, check=False)
            assert done.returncode == 1
            assert "name server 127.0.0.1 cannot be updated: The peer didn't like the signature" in done.stdout
            assert zone.refused == 2  # to add it, and to take it away
        no_bug(server.log)


def test_the_account_is_shown_gets_another_key_and_ends(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, MAIL), server, pebble)
    shown = command(server, "acme", "account").stdout
    assert "status:     valid" in shown
    assert "contact:    mailto:postmaster@acme.test" in shown
    server.replace("mailto:postmaster@acme.test", "mailto:hostmaster@acme.test")
    command(server, "reload")
    assert "hostmaster" in command(server, "acme", "account", "--update").stdout
    assert "hostmaster" in command(server, "acme", "account").stdout

    before = command(server, "acme", "account").stdout
    old = account_key(server)
    assert without_orders(server, "acme", "rollover") == "the account has a new key\n"
    assert account_key(server) != old
    assert command(server, "acme", "account").stdout == before, "it is the same account"
    # All workers answer with the new key's thumbprint.
    serial = served(server, MAIL).serial_number
    command(server, "acme", "renew", MAIL)
    assert served(server, MAIL).serial_number != serial

    without_orders(server, "acme", "account", "--deactivate")
    assert "has no account" in command(server, "acme", "account", check=False).stderr
    # What the account has asked for can be revoked all the same (RFC 8555 7.6), and another makes a new account.
    last = served(server, MAIL)
    assert (
        "its own key signed the request" in command(server, "acme", "revoke", MAIL, "--reason", "keyCompromise").stdout
    )
    assert pebble.revocation(last)["Status"] == "Revoked"
    until(lambda: served(server, MAIL).serial_number != last.serial_number, server, pebble)
    assert command(server, "acme", "account").stdout != before


def test_a_revoked_certificate_is_replaced_and_not_gone_back_to(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, MAIL), server, pebble)
    command(server, "acme", "renew", MAIL)
    revoked = served(server, MAIL)
    told = command(server, "acme", "revoke", MAIL, "--reason", "keyCompromise").stdout
    assert f"{MAIL}: revoked" in told
    until(lambda: served(server, MAIL).serial_number != revoked.serial_number, server, pebble)
    assert pebble.revocation(revoked)["Status"] == "Revoked"
    history = command(server, "cert", "history", MAIL).stdout
    assert "(revoked)" in history
    number = next(line.split()[0] for line in history.splitlines() if "(revoked)" in line)
    refused = command(server, "cert", "activate", MAIL, number, check=False)
    assert "was revoked by its authority" in refused.stderr
    assert f"{MAIL}: revoked" in command(server, "acme", "revoke", MAIL, "--activation", number).stdout


def test_a_change_of_the_accounts_key_that_was_cut_short_is_ended_by_the_next_start(
    running: tuple[Server, Pebble],
) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, MAIL), server, pebble)
    shown = command(server, "acme", "account").stdout
    config = config_of(server)
    new = acme_state.next_account_key(server.dir / "state", config.acme.directory)
    # As far as a process comes that is killed before it has heard what came of it; as who we are, which any Python allows.
    Child(evolve(config, server=evolve(config.server, user=""))).ask("roll-over", {"next": new.reveal().decode()})
    server.stop()
    server.start()
    until(lambda: account_key(server) == new, server, pebble)
    assert command(server, "acme", "account").stdout == shown
    until(lambda: command(server, "acme", "renew", MAIL, check=False).returncode == 0, server, pebble)


def test_an_alias_leads_to_another_zone(running: tuple[Server, Pebble]) -> None:
    server, pebble = running
    until(lambda: by_pebble(server, "a.wild.acme.test"), server, pebble)
    pebble.tell_names("set-cname", host="_acme-challenge.wild.acme.test", target="proofs.dynamic.test")
    try:
        command(server, "acme", "renew", WILD)
    finally:
        pebble.tell_names("clear-cname", host="_acme-challenge.wild.acme.test")
    assert [line.split(maxsplit=2)[2] for line in pebble.hook_log[-2:]] == [
        "add proofs.dynamic.test",
        "remove proofs.dynamic.test",
    ]


def test_an_order_that_a_killed_server_has_begun_is_ended_by_the_next(tmp_path: Path) -> None:
    """Killed while it proves the host: one order, and one certificate."""
    server = Server(tmp_path / "server", workers=0)
    with Pebble(tmp_path / "pebble", 1) as pebble:
        begun = tmp_path / "begun"
        hook = pebble.hook()
        slow = tmp_path / "slow"
        slow.write_text(
            f"#!/bin/sh\n[ $1 = remove ] || [ -e {begun} ] || {{ touch {begun}; sleep 60; }}\nexec {hook} $@\n"
        )
        slow.chmod(0o755)
        more = f'challenge = "dns-01"\n[acme.dns]\nhook = ["{slow}"]\nwait = 0.1\n{pebble.resolver}'
        server.config.write_text(server.config.read_text() + domain([MAIL]) + pebble.table(more))
        server.start()
        until(begun.exists, server, pebble)
        assert acme_state.pending_order(server.dir / "state", MAIL) is not None
        server.stop(signal.SIGKILL)
        with server:
            until(lambda: by_pebble(server, MAIL), server, pebble)
            until(lambda: acme_state.pending_order(server.dir / "state", MAIL) is None, server, pebble)
            assert pebble.log.count("Added order") == 1  # a POST is repeated where Pebble refuses its nonce
            assert pebble.log.count("Issued certificate serial") == 1
            assert len(command(server, "cert", "history", MAIL).stdout.splitlines()) == 3  # with the self-signed one
        no_bug(server.log)
