"""Logins that send no password, by GNU SASL against ours, and by our test's client against Dovecot with our users file."""

from __future__ import annotations

import imaplib
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from scramp import ScramClient

from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.scram_fields import make_fields, replace_fields
from tests import dovecot
from tests.interop.conftest import Interop
from tests.server import Server
from tests.tls.client_authority import ClientAuthority

EVERYWHERE = '[auth]\nscram_protocols = ["imap", "pop3", "submission"]\n'


@pytest.fixture(scope="module")
def bound(interop: Interop) -> Iterator[Interop]:
    """With a server of its own, which offers SCRAM in every protocol, with and without -PLUS."""
    with Server(interop.work / "bound", edit={"[auth]\n": EVERYWHERE}) as server:
        yield evolve(interop, server=server)


@pytest.fixture(scope="module")
def unbound(interop: Interop) -> Iterator[Interop]:
    """With a server of its own, which offers SCRAM in every protocol, without -PLUS."""
    without = f'{EVERYWHERE}mechanisms = ["SCRAM-SHA-256", "PLAIN"]\n'
    with Server(interop.work / "unbound", edit={"[auth]\n": without}) as server:
        yield evolve(interop, server=server)


def gsasl(interop: Interop, protocol: str, mechanism: str, user: str, password: str, *more: str) -> str:
    """What it says, and what the server answered, of a login after STARTTLS."""
    done = interop.run(
        "gsasl",
        {"imap": "--imap", "submission": "--smtp"}[protocol],
        "--verbose",
        f"--connect=mail.example.test:{interop.server.port(protocol)}",
        f"--x509-ca-file={interop.server.ca}",
        f"--mechanism={mechanism}",
        f"--authentication-id={user}",
        f"--password={password}",
        *more,
        data="",
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("protocol", ["imap", "submission"])
@pytest.mark.parametrize(("mechanism", "more"), [("SCRAM-SHA-256-PLUS", []), ("SCRAM-SHA-256", ["--no-cb"])])
def test_gsasl(bound: Interop, protocol: str, mechanism: str, more: list[str]) -> None:
    user, password = bound.server.user_of("example.test")
    before = len(bound.server.log)
    said = gsasl(bound, protocol, mechanism, user, password, *more)
    assert "authentication finished (server trusted)" in said.lower(), said
    bound.server.wait_for(rf"login session=.* user={user} method={mechanism}\n", since=before)
    said = gsasl(bound, protocol, mechanism, user, "wrong", *more)
    assert "server trusted" not in said
    bound.server.wait_for(rf"login-failed session=.* method={mechanism} ", since=before)


def mpop(interop: Interop, server: Server, protocol: str, user: str, *lines: str) -> bool:
    """Does it log in by POP3? `lines` say how."""
    starttls = "off" if protocol == "pop3s" else "on"
    return _runs(
        interop,
        server,
        "mpop",
        f"{protocol} {user}",
        server.port(protocol),
        [
            f"tls_starttls {starttls}",
            f"user {user}",
            *lines,
            "keep on",
            "delivery mbox /dev/null",
        ],
        "-a",
    )


def msmtp(interop: Interop, server: Server, protocol: str, user: str, *lines: str) -> bool:
    """Does it send by submission?"""
    starttls = "off" if protocol == "submissions" else "on"
    more = [f"tls_starttls {starttls}", f"user {user}", *lines, f"from {user}"]
    return _runs(interop, server, "msmtp", f"{protocol} {user}", server.port(protocol), more, user)


def _runs(
    interop: Interop, server: Server, program: str, name: str, port: int, lines: list[str], *arguments: str
) -> bool:
    home = interop.work / f"{program} {name}".replace(" ", "-").replace("@", "-")
    home.mkdir(exist_ok=True)
    start = ["account default", "host mail.example.test", f"port {port}", "tls on", f"tls_trust_file {server.ca}"]
    (home / "rc").write_text("\n".join([*start, *lines, ""]))
    (home / "rc").chmod(0o600)
    done = interop.run(
        program, "-C", str(home / "rc"), *arguments, home=home, data="Subject: by SCRAM\n\nhello\n", check=False
    )
    assert done.returncode == 0 or "GNU SASL" in done.stderr or "uthenti" in done.stderr, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("protocol", ["pop3s", "pop3"])
def test_mpop(bound: Interop, protocol: str) -> None:
    user, password = bound.server.user_of("example.test")
    for how, mechanism in (("on", "SCRAM-SHA-256-PLUS"), ("plain", "PLAIN")):
        before = len(bound.server.log)
        assert mpop(bound, bound.server, protocol, user, f"auth {how}", f"passwordeval echo '{password}'")
        bound.server.wait_for(rf"login session=\S+ protocol={protocol} .* method={mechanism}\n", since=before)
    assert not mpop(bound, bound.server, protocol, user, "auth on", "passwordeval echo wrong")


@pytest.mark.parametrize("protocol", ["submissions", "submission"])
def test_msmtp(bound: Interop, protocol: str) -> None:
    user, password = bound.server.user_of("example.test")
    before = len(bound.server.log)
    assert msmtp(bound, bound.server, protocol, user, "auth on", f"passwordeval echo '{password}'")
    bound.server.wait_for(rf"login session=\S+ protocol={protocol} .* method=SCRAM-SHA-256-PLUS\n", since=before)


@pytest.mark.parametrize("protocol", ["pop3s", "pop3"])
def test_mutt_reads_by_scram(unbound: Interop, protocol: str) -> None:
    user, _password = unbound.server.user_of("example.test")
    before = len(unbound.server.log)
    assert "10 kept" in mutt_by_pop3(unbound, unbound.server, protocol)
    unbound.server.wait_for(
        rf"login session=\S+ protocol={protocol} .* user={user} method=SCRAM-SHA-256\n", since=before
    )


def mutt_by_pop3(interop: Interop, server: Server, protocol: str, more: str = "") -> str:
    """What is on its screen while it reads a maildrop and leaves."""
    interop.need("mutt")
    interop.need("script")
    user, password = server.user_of("example.test")
    home = interop.work / f"mutt-{protocol}-{server.base}"
    home.mkdir(exist_ok=True)
    (home / "rc").write_text(
        f"set ssl_ca_certificates_file={server.ca}\nset certificate_file={home}/none\nset ssl_starttls=yes\n"
        f'set ssl_force_tls=yes\nset pop_user={user}\nset pop_pass="{password}"\nset header_cache=\n'
        f"set folder={home}\nset sleep_time=0\nset move=no\n{more}"
    )
    url = f"{'pops' if protocol == 'pop3s' else 'pop'}://{user}@mail.example.test:{server.port(protocol)}"
    inside = f"stty rows 24 cols 80; mutt -F {home}/rc -f {url} -e \"push '<quit>'\""
    done = interop.run("timeout", "60", "script", "-qec", inside, "/dev/null", home=home, check=False)
    return done.stdout


def mutt_sends(interop: Interop, server: Server, more: str = "") -> str:
    """What it says where it cannot send by submission; nothing where it can."""
    interop.need("mutt")
    user, password = server.user_of("example.test")
    home = interop.work / f"mutt-sends-{server.base}"
    home.mkdir(exist_ok=True)
    (home / "rc").write_text(
        f"set ssl_ca_certificates_file={server.ca}\nset certificate_file={home}/none\nset ssl_starttls=yes\n"
        f'set ssl_force_tls=yes\nset smtp_pass="{password}"\nset from={user}\nset copy=no\nset folder={home}\n'
        f"set smtp_url=smtp://{user}@mail.example.test:{server.port('submission')}\n{more}"
    )
    done = interop.run("mutt", "-F", str(home / "rc"), "-s", "by mutt", user, home=home, data="hello\n", check=False)
    return done.stderr if done.returncode else ""


# --- Why POP3 and submission offer no SCRAM where nothing is said. A Debian in which one of these does not hold any more is
# a reason to think about the default of [auth] scram_protocols again.


def test_mutt_cannot_bind(bound: Interop) -> None:
    """It chooses -PLUS, gives GNU SASL no binding, and takes the answer to its `*` for that to USER."""
    before = len(bound.server.log)
    screen = mutt_by_pop3(bound, bound.server, "pop3s")
    assert "SCRAM-SHA-256-PLUS" in screen
    assert "Login failed" in screen
    assert " login session=" not in bound.server.log[before:]
    chosen = 'set pop_authenticators="scram-sha-256:plain"\n'
    assert " kept, 0 deleted" in mutt_by_pop3(bound, bound.server, "pop3s", chosen)
    assert "SASL authentication failed" in mutt_sends(bound, bound.server)
    assert not mutt_sends(bound, bound.server, 'set smtp_authenticators="scram-sha-256:plain"\n')


def test_gnu_sasl_with_a_binding_refuses_scram_without(unbound: Interop) -> None:
    """mpop, msmtp and gsasl give it one: then they can only do -PLUS, or a password."""
    server = unbound.server
    user, password = server.user_of("example.test")
    secret = f"passwordeval echo '{password}'"
    assert not mpop(unbound, server, "pop3s", user, "auth on", secret)
    assert not msmtp(unbound, server, "submission", user, "auth on", secret)
    assert "Error authenticating user" in gsasl(unbound, "imap", "SCRAM-SHA-256", user, password)
    assert mpop(unbound, server, "pop3s", user, "auth plain", secret)
    assert msmtp(unbound, server, "submission", user, "auth plain", secret)


def test_each_can_log_in_where_nothing_is_said(interop: Interop) -> None:
    server = interop.server
    user, password = server.user_of("example.test")
    secret = f"passwordeval echo '{password}'"
    assert mpop(interop, server, "pop3s", user, "auth on", secret)
    assert msmtp(interop, server, "submission", user, "auth on", secret)
    assert " kept, 0 deleted" in mutt_by_pop3(interop, server, "pop3s")
    assert not mutt_sends(interop, server)


@pytest.fixture(scope="module")
def certified(interop: Interop) -> Iterator[tuple[Interop, ClientAuthority]]:
    """With a server of its own, which asks for certificates."""
    clients = ClientAuthority()
    name = 'name = "example.test"\n'
    server = Server(
        interop.work / "external",
        edit={name: f'{name}client_certificates = "asked"\nclient_ca = "ca-of-clients.pem"\n'},
    )
    (server.dir / "ca-of-clients.pem").write_bytes(clients.pem)
    with server:
        yield evolve(interop, server=server), clients


def test_external(certified: tuple[Interop, ClientAuthority]) -> None:
    interop, clients = certified
    server = interop.server
    chain, key = clients.issue()
    (interop.work / "anna.pem").write_bytes(chain)
    (interop.work / "anna.key").write_bytes(key)
    (interop.work / "anna.key").chmod(0o600)
    lines = [f"tls_cert_file {interop.work}/anna.pem", f"tls_key_file {interop.work}/anna.key", "auth external"]
    before = len(server.log)
    for protocol in ("pop3s", "pop3"):
        assert mpop(interop, server, protocol, "anna@example.test", *lines)
    for protocol in ("submissions", "submission"):
        assert msmtp(interop, server, protocol, "anna@example.test", *lines)
    for protocol in ("pop3s", "pop3", "submissions", "submission"):
        server.wait_for(
            rf"login session=\S+ protocol={protocol} .* user=anna@example.test method=EXTERNAL\n", since=before
        )


@pytest.fixture
def there() -> Iterator[dovecot.Dovecot]:
    dovecot.need()
    with dovecot.away({}, protocols="imap") as one:
        mechanisms = "plain login scram-sha-256 scram-sha-1"
        one.config.write_text(one.config.read_text().replace("= plain login", f"= {mechanisms}"))
        yield one


def scram(client: imaplib.IMAP4, user: str, password: str, mechanism: str) -> str:
    """The answer of a login by SCRAM, in which the server has proved itself."""
    proof: Any = ScramClient([mechanism], user, password)
    steps = [
        lambda _said: proof.get_client_first(),
        lambda said: (proof.set_server_first(said), proof.get_client_final())[1],
        lambda said: (proof.set_server_final(said), "")[1],
    ]
    try:
        return client.authenticate(mechanism, lambda said: steps.pop(0)(said.decode()).encode())[0]
    except imaplib.IMAP4.error:
        return "NO"


def test_dovecot_reads_our_users(there: dovecot.Dovecot) -> None:
    """The keys beside a password do not disturb it; those of its own scheme let users in there, too."""
    beside = schemes.make(b"secret")
    fields = replace_fields("userdb_quota=1G", make_fields(beside, b"secret", ["SHA-256", "SHA-1"]))
    keyed = schemes.make(b"secret", "SCRAM-SHA-256")
    users = f"anna@example.test:{beside}::::::{fields}\nben@example.test:{keyed}::::::\n"
    (there.dir / "users").write_text(users)
    with there:
        for user in ("anna@example.test", "ben@example.test"):
            client = imaplib.IMAP4("127.0.0.1", there.ports["imap"])
            assert client.login(user, "secret")[0] == "OK", there.log
            client.logout()
        client = imaplib.IMAP4("127.0.0.1", there.ports["imap"])
        assert scram(client, "ben@example.test", "secret", "SCRAM-SHA-256") == "OK", there.log
        client.logout()
        assert (
            scram(imaplib.IMAP4("127.0.0.1", there.ports["imap"]), "ben@example.test", "wrong", "SCRAM-SHA-256") == "NO"
        )
    assert "Error" not in there.log, there.log


def test_entries_of_doveadm_are_ours(there: dovecot.Dovecot) -> None:
    for scheme in ("SCRAM-SHA-256", "SCRAM-SHA-1"):
        stored = there.doveadm("pw", "-s", scheme, "-p", "pä ss").decode().strip()
        assert schemes.verify(stored, "pä ss".encode())
        assert not schemes.verify(stored, b"pa ss")
