"""Delegates behind a proxy and at the socket for logins, whose limits count, and whom guesses concern; exchanges that are held back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner

from mailserver.auth.backends.directory_lines import new_account
from mailserver.auth.schemes.scram_fields import make_fields, replace_fields
from mailserver.cli import main
from mailserver.directory import changing
from mailserver.directory.changing import Author
from mailserver.directory.model import AccountLimits, State
from mailserver.directory.sqlite import SQLiteDatabase
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.live.test_sasl import SaslClient
from tests.server import Server

ADMIN, ANNA, BEN = "admin@example.org", "anna@example.test", "ben@example.test"
HERE, ELSEWHERE = "192.0.2.5", "198.51.100.7"
ROOT = Author("tests", 1)
EXTRA = """
[[listener]]
protocol = "imap"
port = {a}
addresses = ["127.0.0.1"]
allow_cleartext = true
proxy_from = ["127.0.0.0/8"]

[[listener]]
protocol = "pop3"
port = {b}
addresses = ["127.0.0.1"]
allow_cleartext = true
proxy_from = ["127.0.0.0/8"]

[[listener]]
protocol = "submission"
port = {c}
addresses = ["127.0.0.1"]
allow_cleartext = true
proxy_from = ["127.0.0.0/8"]

[[listener]]
protocol = "auth"
socket = "{dir}/auth"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("delegates")
    made = Server(
        place,
        workers=2,
        append=EXTRA,
        edit={
            f'backends = ["file:{place}/users"]': f'backends = ["directory:{place}/accounts/directory.db"]\n'
            'failure_delay = 0.1\nfailure_delay_max = 0.1\nmaster_separator = "*"\nscram_protocols = ["imap", "pop3", "submission"]'
        },
    )
    command(made, "directory", "create")
    database = opened(made)
    for name in (ADMIN, ANNA, BEN):
        add(database, name)
    database.close()
    command(made, "delegate", "add", ADMIN, "example.test", "--expires", "8h", "--why", "a question")
    with made as server:
        yield server
    no_bug(server.log)


def add(database: SQLiteDatabase, name: str) -> None:
    """An account whose password is quick to check, with SCRAM keys."""
    stored = f"{{PLAIN}}of-{name}"
    fields = make_fields(stored, f"of-{name}".encode(), ["SHA-256", "SHA-1"], 4096)
    changing.add_account(database, ROOT, new_account(f"{name}:{stored}::::::{replace_fields('', fields)}")[0])


def opened(server: Server) -> SQLiteDatabase:
    return SQLiteDatabase.open(server.dir / "accounts" / "directory.db", waits=5000)


def command(server: Server, *words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--config", str(server.config)])
    assert done.exit_code == 0, done.output
    return done.output


def plain(authorization: str, name: str, password: str) -> bytes:
    return base64.b64encode(f"{authorization}\0{name}\0{password}".encode())


def proxied(server: Server, peer: str, protocol: str = "imap") -> Client:
    """A client of that address, behind a proxy."""
    port = server.spare_ports[("imap", "pop3", "submission").index(protocol)]
    before = f"PROXY TCP4 {peer} {peer} 40000 143\r\n".encode()
    client = Client(server, protocol, port=port, before=before)
    client.greeting()
    return client


def by_identity(client: Client, user: str, delegate: str, password: str) -> bytes:
    """The answer to a login by an authorization identity."""
    initial = plain(user, delegate, password)
    if client.family == "imap":
        client.send(b"a AUTHENTICATE PLAIN " + initial + b"\r\n")
        return client.until(rb"a ")[-1]
    if client.family == "submission":
        client.hello()
    return client.ask(b"AUTH PLAIN " + initial + b"\r\n")


def at_the_socket(server: Server, user: str, delegate: str, password: str, peer: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(server.dir / "auth"))
        with connection.makefile("rb") as file:
            while file.readline() != b"DONE\n":
                pass
            initial = plain(user, delegate, password)
            connection.sendall(b"AUTH\t1\tPLAIN\tservice=imap\trip=%b\tresp=%b\n" % (peer.encode(), initial))
            return file.readline().decode()


def answers(client: Client) -> bool:
    client.send(b"z NOOP\r\n")
    return client.until(rb"z ")[-1].startswith(b"z OK")


GOOD = {"imap": b"a OK", "pop3": b"+OK", "submission": b"235"}
NOT_ALLOWED = {"imap": b"a NO [AUTHORIZATIONFAILED]", "pop3": b"-ERR [AUTH]", "submission": b"535 5.7.8"}
WRONG = {"imap": b"a NO [AUTHENTICATIONFAILED]", "pop3": b"-ERR [AUTH]", "submission": b"535 5.7.8"}


@pytest.mark.parametrize("protocol", list(GOOD))
def test_behind_a_proxy_the_delegates_networks_count_and_not_the_users(server: Server, protocol: str) -> None:
    database = opened(server)
    changing.set_limits(database, ROOT, ADMIN, AccountLimits(networks=("192.0.2.0/24",)))
    changing.set_limits(database, ROOT, ANNA, AccountLimits(networks=("203.0.113.0/24",)))
    try:
        for peer, expected in ((HERE, GOOD), (ELSEWHERE, WRONG)):
            with proxied(server, peer, protocol) as client:
                assert by_identity(client, ANNA, ADMIN, f"of-{ADMIN}").startswith(expected[protocol])
            with proxied(server, peer, protocol) as client:
                assert client.try_login(f"{ANNA}*{ADMIN}", f"of-{ADMIN}").startswith(expected[protocol])
        assert at_the_socket(server, ANNA, ADMIN, f"of-{ADMIN}", HERE) == f"OK\t1\tuser={ANNA}\n"
        assert at_the_socket(server, ANNA, ADMIN, f"of-{ADMIN}", ELSEWHERE).startswith("FAIL\t1\t")
        with proxied(server, HERE, protocol) as client:
            assert client.try_login(ANNA, f"of-{ANNA}").startswith(WRONG[protocol]), "her own networks hold for her"
        for peer in (HERE, ELSEWHERE):
            # Nobody has allowed that.
            with proxied(server, peer, protocol) as client:
                refused = by_identity(client, BEN, ANNA, f"of-{ANNA}")
                assert refused.startswith(WRONG[protocol]), "whose password it is has to be let in first"
    finally:
        for name in (ADMIN, ANNA):
            changing.set_limits(database, ROOT, name, AccountLimits())
        database.close()
    with proxied(server, HERE, protocol) as client:
        assert by_identity(client, BEN, ANNA, f"of-{ANNA}").startswith(NOT_ALLOWED[protocol])
    assert at_the_socket(server, BEN, ANNA, f"of-{ANNA}", HERE).startswith("FAIL\t1\t")


def test_protocols_of_the_delegate_count(server: Server) -> None:
    database = opened(server)
    changing.set_limits(database, ROOT, ADMIN, AccountLimits(protocols=("imap",)))
    try:
        for protocol, expected in (("imap", GOOD), ("pop3", WRONG), ("submission", WRONG)):
            with proxied(server, HERE, protocol) as client:
                assert by_identity(client, ANNA, ADMIN, f"of-{ADMIN}").startswith(expected[protocol])
        with (
            proxied(server, HERE).log_in(f"{ANNA}*{ADMIN}", f"of-{ADMIN}") as session,
            proxied(server, HERE).log_in(ANNA, f"of-{ANNA}") as own,
        ):
            changing.set_limits(database, ROOT, ADMIN, AccountLimits(protocols=("pop3",)))
            assert b"this account was changed" in session.rest()
            assert answers(own)
    finally:
        changing.set_limits(database, ROOT, ADMIN, AccountLimits())
        database.close()


def test_an_app_password_of_the_delegate(server: Server) -> None:
    said = command(server, "user", "app-password", "add", ADMIN, "--label", "phone", "--protocol", "imap")
    phone = said.partition("password: ")[2].split()[0]
    with proxied(server, HERE, "pop3") as client:
        assert client.try_login(f"{ANNA}*{ADMIN}", phone).startswith(b"-ERR [AUTH]"), "it is for IMAP alone"
    assert at_the_socket(server, ANNA, ADMIN, phone, HERE) == f"OK\t1\tuser={ANNA}\n"
    with Client(server, "imaps") as session, Client(server, "imaps") as other, Client(server, "imaps") as own:
        for client in (session, other, own):
            client.greeting()
        session.log_in(f"{ANNA}*{ADMIN}", phone)
        other.log_in(f"{ANNA}*{ADMIN}", f"of-{ADMIN}")
        own.log_in(ANNA, f"of-{ANNA}")
        command(server, "user", "app-password", "revoke", ADMIN, "phone")
        assert b"this account was changed" in session.rest()
        assert answers(other)
        assert answers(own)


def test_a_disabled_delegate_is_refused_as_a_wrong_password(server: Server) -> None:
    database = opened(server)
    with proxied(server, HERE).log_in(ANNA, f"of-{ANNA}") as own:
        with proxied(server, HERE).log_in(f"{ANNA}*{ADMIN}", f"of-{ADMIN}") as session:
            changing.set_state(database, ROOT, ADMIN, State.DISABLED)
            assert session.rest()
        try:
            for protocol, wrong in WRONG.items():
                with proxied(server, HERE, protocol) as client:
                    assert by_identity(client, ANNA, ADMIN, f"of-{ADMIN}").startswith(wrong)
            assert "temp" not in at_the_socket(server, ANNA, ADMIN, f"of-{ADMIN}", HERE)
        finally:
            changing.set_state(database, ROOT, ADMIN, State.ACTIVE)
            database.close()
        assert answers(own)


def test_guesses_count_for_the_delegate_and_not_for_the_user(server: Server) -> None:
    before = len(server.log)
    peer = "198.51.100.99"
    for number in range(3):
        with proxied(server, peer) as client:
            assert client.try_login(f"{ANNA}*{ADMIN}", f"guess {number}").startswith(WRONG["imap"])
    with proxied(server, peer) as client:
        assert by_identity(client, ANNA, ADMIN, "guess").startswith(WRONG["imap"])
    # The master writes these lines for its workers.
    eventually(lambda: server.log[before:].count("guess v1") >= 4)
    guesses = [line for line in server.log[before:].splitlines() if "guess v1" in line]
    assert len(guesses) == 4
    assert all(f"peer={peer} user={ADMIN} " in line for line in guesses), guesses
    with proxied(server, peer).log_in(ANNA, f"of-{ANNA}"):
        pass


def test_the_log_and_the_last_logins_name_both(server: Server) -> None:
    before = len(server.log)
    with proxied(server, HERE).log_in(f"{BEN}*{ADMIN}", f"of-{ADMIN}"):
        pass
    assert at_the_socket(server, BEN, ADMIN, f"of-{ADMIN}", HERE).startswith("OK\t")
    for protocol in ("imap", "auth"):
        line = server.wait_for(rf"login session=\S+ protocol={protocol} .*delegate.*\n", since=before)[0]
        assert {f"user={BEN}", f"delegate={ADMIN}", f"peer={HERE}"} <= set(line.split()), line
    for name in (BEN, ADMIN):
        eventually(lambda name=name: both(command(server, "last", name)))


def both(said: str) -> bool:
    return any(BEN in line and ADMIN in line for line in said.splitlines())


def test_a_login_by_scram_of_a_delegate_who_is_removed_meanwhile(server: Server) -> None:
    exchange = Exchange(server, ADMIN, authorization=BEN)
    assert exchange.end().startswith(b"a OK")
    exchange = Exchange(server, ADMIN, authorization=BEN)
    command(server, "delegate", "remove", ADMIN, "example.test")
    try:
        assert exchange.end().startswith(b"a NO [AUTHORIZATIONFAILED]")
    finally:
        command(server, "delegate", "add", ADMIN, "example.test", "--expires", "8h", "--why", "a question")


# --- Exchanges that are held back


class Exchange:
    """SCRAM until the server has told its salt (RFC 5802 3), as a user or, by its authorization identity, as another one."""

    def __init__(self, server: Server, user: str, authorization: str = "") -> None:
        self.client = SaslClient(server)
        self.password = f"of-{user}"
        self.header = f"n,a={authorization}," if authorization else "n,,"
        self.first = f"n={user},r=abcdefghijkl"
        self.answer = self.client._challenge(self.client.begin("SCRAM-SHA-256", f"{self.header}{self.first}".encode()))

    def end(self) -> bytes:
        """The answer to the proof, and to what follows a right one."""
        fields = dict(each.split("=", 1) for each in self.answer.split(","))
        salt, rounds = base64.b64decode(fields["s"]), int(fields["i"])
        key = hmac.digest(hashlib.pbkdf2_hmac("sha256", self.password.encode(), salt, rounds), b"Client Key", "sha256")
        last = f"c={base64.b64encode(self.header.encode()).decode()},r={fields['r']}"
        message = f"{self.first},{self.answer},{last}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        said = self.client.ask(base64.b64encode(f"{last},p={proof}".encode()))
        while said.startswith(b"+ "):
            said = self.client.ask(b"")
        self.client.socket.close()
        return said


Change = Callable[[SQLiteDatabase, str], object]


def _set_password(database: SQLiteDatabase, name: str) -> None:
    stored = "{PLAIN}another"
    fields = make_fields(stored, b"another", ["SHA-256", "SHA-1"], 4096)
    password = new_account(f"{name}:{stored}::::::{replace_fields('', fields)}")[0].password
    changing.set_password(database, ROOT, name, password)


CHANGES: dict[str, Change] = {
    "password": _set_password,
    "disabled": lambda database, name: changing.set_state(database, ROOT, name, State.DISABLED),
    "deleted": lambda database, name: changing.delete(database, ROOT, name),
    "renamed": lambda database, name: changing.rename(database, ROOT, name, f"x-{name}"),
    "network": lambda database, name: changing.set_limits(
        database, ROOT, name, AccountLimits(networks=("203.0.113.0/24",))
    ),
    "protocol": lambda database, name: changing.set_limits(database, ROOT, name, AccountLimits(protocols=("pop3",))),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_an_exchange_that_was_begun_before_a_change_lets_nobody_in(server: Server, name: str) -> None:
    user = f"{name}@example.test"
    database = opened(server)
    add(database, user)
    assert Exchange(server, user).end().startswith(b"a OK")
    # Some are in each of the two workers.
    held = [Exchange(server, user) for _ in range(6)]
    bystander = Exchange(server, ANNA)
    CHANGES[name](database, user)
    database.close()
    for exchange in held:
        assert exchange.end().startswith(b"a NO [AUTHENTICATIONFAILED]")
    assert bystander.end().startswith(b"a OK")
