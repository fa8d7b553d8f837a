"""Requests of another server, many at once, on one connection."""

from __future__ import annotations

import base64
import hashlib
import hmac

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailserver.auth.interfaces import Abilities, LoginContext, User
from mailserver.config.model import Limits
from mailserver.dovecot_auth import session as sessions
from mailserver.dovecot_auth.exchange import ANSWER_TIME
from mailserver.dovecot_auth.session import AuthSession, Services
from mailserver.errors import AuthorizationFailed, AuthUnavailable, Cancelled, TooManyLogins
from mailserver.net.connection.coroutines import AbandonableDeferred, TurnOverrun, start_task
from mailserver.sasl.mechanism import Claim
from mailserver.sasl.registry import MECHANISMS, Mechanisms
from tests.fakes import Client, FakeAuthenticator, info

ANNA = base64.b64encode(b"\0anna@example.test\0secret")
WRONG = base64.b64encode(b"\0anna@example.test\0wrong")
POSTFIX = b"service=smtp\tnologin\tlip=127.0.0.1\trip=192.0.2.1"


class SlowAuthenticator(FakeAuthenticator):
    """Each login waits until the test answers it."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[AbandonableDeferred[None]] = []
        self.cancelled = 0

    async def login(self, claim: Claim, context: LoginContext) -> User:
        waiting: AbandonableDeferred[None] = AbandonableDeferred()
        self.waiting.append(waiting)
        try:
            await waiting
        except Cancelled:
            self.cancelled += 1
            raise
        return await super().login(claim, context)


class Peer(Client):
    """The other server."""

    def __init__(self, authenticator: FakeAuthenticator | None = None) -> None:
        self.authenticator = authenticator or FakeAuthenticator()
        self.authenticator.can = Abilities(frozenset({"SHA-256"}), certificates=True)

        def make(channel):
            return AuthSession(
                channel,
                lambda: Services(
                    authenticator=self.authenticator,
                    mechanisms=Mechanisms(MECHANISMS),
                    start=lambda coroutine: start_task(coroutine, channel.now),
                    waiting=AbandonableDeferred,
                    limits=Limits(),
                ),
            )

        super().__init__(make, info("auth", peer=None, peer_port=0))
        self.greeting = self.take()

    def lines(self, data: bytes) -> list[bytes]:
        """Send lines, and the lines that come back."""
        self.send(data)
        self.settle()
        return self.take().splitlines()

    def answers(self) -> list[bytes]:
        self.settle()
        return self.take().splitlines()


def auth(number: int, resp: bytes = ANNA, parameters: bytes = POSTFIX, mechanism: bytes = b"PLAIN") -> bytes:
    return b"AUTH\t%d\t%b\t%b\tresp=%b\n" % (number, mechanism, parameters, resp)


def logged(peer: Peer) -> list[str]:
    return [event for event, _fields in peer.channel.logged]


def test_the_greeting_offers_what_can_come_through() -> None:
    lines = Peer().greeting.splitlines()
    assert lines[0] == b"VERSION\t1\t2"
    mechanisms = [line.split(b"\t", 1)[1] for line in lines if line.startswith(b"MECH\t")]
    assert mechanisms == [b"SCRAM-SHA-256\tmutual-auth", b"PLAIN\tplaintext", b"LOGIN\tplaintext"]
    assert [line.partition(b"\t")[0] for line in lines[-4:]] == [b"SPID", b"CUID", b"COOKIE", b"DONE"]
    assert Peer().greeting != Peer().greeting, "each has its own cookie"


def test_right_and_wrong() -> None:
    peer = Peer()
    assert peer.lines(b"VERSION\t1\t0\nCPID\t77\n" + auth(1)) == [b"OK\t1\tuser=anna@example.test"]
    assert peer.lines(auth(2, WRONG)) == [b"FAIL\t2\tuser=anna@example.test\treason=wrong user name or password"]
    assert peer.lines(auth(3)) == [b"OK\t3\tuser=anna@example.test"], "the connection goes on"
    login = dict(peer.channel.logged)["login"]
    assert login == {"peer": "192.0.2.1", "service": "smtp", "user": "anna@example.test", "method": "PLAIN"}
    assert logged(peer) == ["login", "login-failed", "login"]


def test_a_request_is_checked_by_the_services_of_its_time() -> None:
    """A connection stays open over reloads, and who was removed by one must not get in."""
    peer = Peer()
    assert peer.lines(auth(1)) == [b"OK\t1\tuser=anna@example.test"]
    peer.authenticator = FakeAuthenticator({"bert@example.org": "secret2"})
    assert peer.lines(auth(2))[0].startswith(b"FAIL\t2\t")


def test_without_a_version() -> None:
    assert Peer().lines(auth(1)) == [b"OK\t1\tuser=anna@example.test"]


@pytest.mark.parametrize(
    ("parameters", "protocol", "client"),
    [
        (b"service=smtp\trip=192.0.2.1", "submission", "192.0.2.1"),
        (b"service=submission\trip=2001:db8::1", "submission", "2001:db8::1"),
        (b"service=imap", "imap", "None"),
        (b"service=pop3", "pop3", "None"),
        (b"service=smtp\trip=fe80::1%eth0", "submission", "fe80::1"),
        (b"service=smtp\trip=fe80::1%a b guess v1 peer=192.0.2.9", "submission", "fe80::1"),
        (b"service=smtp\trip=::ffff:192.0.2.1", "submission", "192.0.2.1"),
        (b"service=smtp\trip=64:ff9b::c000:201", "submission", "64:ff9b::c000:201"),
        (b"service=sieve\trip=", "auth", "None"),
        (b"nologin", "auth", "None"),
        (b"service=xmpp\tno-penalty\tsecured=tls\tunknown=1\trport=x", "auth", "None"),
    ],
)
def test_circumstances_of_a_login(parameters: bytes, protocol: str, client: str) -> None:
    peer = Peer()
    assert peer.lines(auth(1, parameters=parameters))[0].startswith(b"OK\t")
    (context,) = peer.authenticator.contexts
    assert (context.protocol, str(context.peer), context.host) == (protocol, client, None)
    assert context.answer_within < ANSWER_TIME


def test_login_in_steps() -> None:
    peer = Peer()
    assert peer.lines(b"AUTH\t9\tLOGIN\t%b\n" % POSTFIX) == [b"CONT\t9\t" + base64.b64encode(b"Username:")]
    user, password = (base64.b64encode(text) for text in (b"anna@example.test", b"secret"))
    assert peer.lines(b"CONT\t9\t%b\n" % user) == [b"CONT\t9\t" + base64.b64encode(b"Password:")]
    assert peer.lines(b"CONT\t9\t%b\n" % password) == [b"OK\t9\tuser=anna@example.test"]
    assert not peer.channel.timers


@pytest.mark.parametrize(("mechanism", "challenge"), [(b"LOGIN", b"VXNlcm5hbWU6"), (b"PLAIN", b"")])
def test_an_empty_initial_response_is_none(mechanism: bytes, challenge: bytes) -> None:
    """As Exim sends it."""
    assert Peer().lines(auth(1, b"", mechanism=mechanism)) == [b"CONT\t1\t" + challenge]


@pytest.mark.parametrize("last_with_success", [False, True])
def test_scram(last_with_success: bool) -> None:
    """The server's last message is a challenge, unless the client takes it with the answer."""
    peer = Peer()
    more = b"\tfinal-resp-ok" if last_with_success else b""
    first = b"n=anna@example.test,r=abcdef"
    (line,) = peer.lines(auth(1, base64.b64encode(b"y,," + first), POSTFIX + more, b"SCRAM-SHA-256"))
    assert line.startswith(b"CONT\t1\t")
    server_first = base64.b64decode(line.split(b"\t")[2])
    proof, server_final = _scram_proof(first, server_first, b"secret")
    got = peer.lines(b"CONT\t1\t%b\n" % base64.b64encode(proof))
    if last_with_success:
        assert got == [b"OK\t1\tuser=anna@example.test\tresp=" + base64.b64encode(server_final)]
    else:
        assert got == [b"CONT\t1\t" + base64.b64encode(server_final)]
        assert peer.lines(b"CONT\t1\t\n") == [b"OK\t1\tuser=anna@example.test"]


@pytest.mark.parametrize("last_with_success", [False, True])
def test_a_change_before_the_answer(last_with_success: bool) -> None:
    peer = Peer()
    more = b"\tfinal-resp-ok" if last_with_success else b""
    first = b"n=anna@example.test,r=abcdef"
    (line,) = peer.lines(auth(1, base64.b64encode(b"y,," + first), b"service=imap" + more, b"SCRAM-SHA-256"))
    proof, _server_final = _scram_proof(first, base64.b64decode(line.split(b"\t")[2]), b"secret")
    peer.authenticator.changed.add("anna@example.test")
    got = peer.lines(b"CONT\t1\t%b\n" % base64.b64encode(proof))
    if not last_with_success:
        assert got[0].startswith(b"CONT\t1\t")
        got = peer.lines(b"CONT\t1\t\n")
    (failure,) = got
    assert failure.startswith(b"FAIL\t1\tuser=anna@example.test\ttemp\tcode=temp_fail\treason=the account was changed")
    assert peer.authenticator.accepted_logins == []


def _scram_proof(first: bytes, server_first: bytes, password: bytes) -> tuple[bytes, bytes]:
    parts = dict(part.split(b"=", 1) for part in server_first.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password, base64.b64decode(parts[b"s"]), int(parts[b"i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without = b"c=eSws,r=" + parts[b"r"]
    message = first + b"," + server_first + b"," + without
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    return without + b",p=" + base64.b64encode(proof), b"v=" + base64.b64encode(server)


@pytest.mark.parametrize("mechanism", [b"EXTERNAL", b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-1", b"ANONYMOUS", b"GSSAPI"])
def test_what_is_not_offered_fails(mechanism: bytes) -> None:
    peer = Peer()
    assert peer.lines(auth(1, mechanism=mechanism)) == [b"FAIL\t1\treason=this mechanism is not offered"]
    assert not peer.authenticator.contexts


@pytest.mark.parametrize("resp", [b"!", b"AGE", b"AGE=\trip=192.0.2.99", b"*", b"A===", b"AA==AA=="])
def test_no_base64(resp: bytes) -> None:
    peer = Peer()
    assert peer.lines(auth(1, resp)) == [b"FAIL\t1\treason=that is not base64"]
    assert peer.lines(auth(2)) == [b"OK\t2\tuser=anna@example.test"]


def test_another_users_name_as_authorization_identity() -> None:
    peer = Peer()
    (line,) = peer.lines(auth(1, base64.b64encode(b"bert@example.org\0anna@example.test\0secret")))
    assert line.split(b"\t")[:5] == [
        *(b"FAIL", b"1", b"user=anna@example.test", b"authz", b"code=authz_fail"),
    ]
    assert line.endswith(AuthorizationFailed.text.encode())


@pytest.mark.parametrize("error", [AuthUnavailable(), TooManyLogins(), RuntimeError("a bug")])
def test_unavailable_for_postfix_is_the_end_of_the_connection(error: Exception) -> None:
    """Which Postfix reports as 454, and Exim as 435; both take FAIL for a wrong password."""
    peer = Peer()
    peer.allow_bugs = True
    peer.authenticator.error = error
    assert peer.lines(auth(1)) == []
    assert peer.done
    assert logged(peer) == ["login-failed"]
    assert bool(peer.channel.bugs) == isinstance(error, RuntimeError)


def test_a_request_that_the_turn_limit_ends_has_its_answer() -> None:
    class Endless(FakeAuthenticator):
        async def login(self, claim: Claim, context: LoginContext) -> User:
            raise TurnOverrun

    peer = Peer(Endless())
    (line,) = peer.lines(auth(1, parameters=b"service=imap"))
    assert b"\tcode=temp_fail\t" in line
    assert not peer.session._exchanges
    assert not peer.done, "the other requests of the connection go on"


def test_unavailable_for_others_is_an_answer() -> None:
    peer = Peer()
    peer.authenticator.error = AuthUnavailable()
    (line,) = peer.lines(auth(1, parameters=b"service=imap"))
    assert line.split(b"\t")[:5] == [b"FAIL", b"1", b"user=anna@example.test", b"temp", b"code=temp_fail"]
    assert not peer.done


def test_the_end_of_a_connection_takes_no_other_request_with_it() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    assert peer.lines(auth(1) + auth(2)) == []
    slow.error = AuthUnavailable()
    slow.waiting[0].callback(None)
    assert peer.answers()[0].startswith(b"FAIL\t1\t")
    slow.error = None
    slow.waiting[1].callback(None)
    assert peer.answers() == [b"OK\t2\tuser=anna@example.test"]


def test_answers_come_as_they_are_ready() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    peer.lines(b"".join(auth(number, WRONG if number == 2 else ANNA) for number in (1, 2, 3)))
    for at in (2, 0, 1):
        slow.waiting[at].callback(None)
    assert [line.split(b"\t")[:2] for line in peer.answers()] == [[b"OK", b"3"], [b"OK", b"1"], [b"FAIL", b"2"]]


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    peer.lines(auth(1, parameters=b"service=imap"))
    peer.wait(ANSWER_TIME - 0.01)
    assert peer.answers() == []
    peer.wait(0.02)
    assert b"temp_fail" in peer.answers()[0]
    assert slow.cancelled == 1
    peer.lines(auth(2))
    peer.wait(ANSWER_TIME + 0.01)
    assert peer.answers() == []
    assert peer.done, "Postfix sees a lost connection"
    assert not peer.channel.timers


def test_a_login_that_cannot_be_cancelled_keeps_its_place() -> None:
    stuck: list[Deferred[None]] = []

    class Stuck(FakeAuthenticator):
        async def login(self, claim: Claim, context: LoginContext) -> User:
            stuck.append(Deferred())
            await stuck[-1]
            return await super().login(claim, context)

    peer = Peer(Stuck())
    peer.lines(b"".join(auth(number, parameters=b"service=imap") for number in range(1, 51)))
    peer.wait(ANSWER_TIME + 0.01)
    assert len(peer.answers()) == sessions.CLIENT_EXCHANGES
    assert b"temp_fail" in peer.lines(auth(51, parameters=b"service=imap"))[0]
    assert len(stuck) == sessions.CLIENT_EXCHANGES
    for each in stuck:
        each.callback(None)
    assert peer.answers() == [], "each has had its answer"
    peer.lines(auth(52, parameters=b"service=imap"))
    assert len(stuck) == sessions.CLIENT_EXCHANGES + 1


def test_one_client_does_not_take_the_places_of_others() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    got = peer.lines(b"".join(auth(number, parameters=b"rip=192.0.2.1") for number in range(1, 10_001)))
    assert len(slow.waiting) == sessions.CLIENT_EXCHANGES
    assert len(got) == 10_000 - sessions.CLIENT_EXCHANGES
    assert all(b"\tcode=temp_fail\t" in line for line in got)
    assert logged(peer) == ["too-many-requests"], "which is logged once"
    peer.lines(auth(10_001, parameters=b"rip=192.0.2.2"))
    slow.waiting[-1].callback(None)
    assert peer.answers() == [b"OK\t10001\tuser=anna@example.test"]
    # All addresses of an IPv6 /64 are one client.
    peer.lines(b"".join(auth(20_000 + n, parameters=b"rip=2001:db8::%x" % n) for n in range(100)))
    assert len(slow.waiting) == 1 + 2 * sessions.CLIENT_EXCHANGES


def test_silent_clients_make_room_for_others() -> None:
    peer = Peer()
    begin = b"".join(
        b"AUTH\t%d\tLOGIN\trip=192.0.%d.%d\n" % (number, number // 250, number % 250)
        for number in range(1, sessions.MAX_EXCHANGES + 1)
    )
    assert len(peer.lines(begin)) == sessions.MAX_EXCHANGES
    got = peer.lines(auth(5000, parameters=b"rip=198.51.100.1"))
    assert [line.split(b"\t")[:2] for line in got] == [[b"FAIL", b"1"], [b"OK", b"5000"]]


def test_places_that_are_all_being_checked() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    numbers = range(1, sessions.MAX_EXCHANGES + 1)
    peer.lines(b"".join(auth(n, parameters=b"rip=192.0.%d.%d" % (n // 250, n % 250)) for n in numbers))
    assert b"temp_fail" in peer.lines(auth(5000, parameters=b"rip=198.51.100.1"))[0]
    assert len(slow.waiting) == sessions.MAX_EXCHANGES


def test_a_client_that_does_not_go_on() -> None:
    peer = Peer()
    peer.lines(b"AUTH\t1\tLOGIN\n")
    peer.wait(Limits().login_time + 1)
    assert peer.answers() == [b"FAIL\t1\treason=no answer from the client in time"]
    assert peer.lines(b"CONT\t1\tAA==\n")[0].startswith(b"FAIL\t1\t")
    assert peer.lines(auth(1)) == [b"OK\t1\tuser=anna@example.test"], "the id is free again"
    assert not peer.channel.timers


def test_a_request_that_postfix_has_left_does_not_count_as_another() -> None:
    """Its client has sent `*`, of which Postfix says nothing here."""
    peer = Peer()
    peer.lines(b"AUTH\t1\tLOGIN\t%b\n" % POSTFIX)
    peer.authenticator.error = AuthUnavailable()
    assert peer.lines(auth(2)) == []
    assert peer.done


def test_cancel() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    assert len(peer.lines(auth(1) + b"AUTH\t2\tLOGIN\nCANCEL\t1\nCANCEL\t2\nCANCEL\t77\n")) == 1
    assert slow.cancelled == 1
    assert peer.lines(b"CONT\t2\tAA==\n")[0].startswith(b"FAIL\t2\t")
    assert not peer.channel.timers


def test_a_continuation_of_nothing() -> None:
    peer = Peer()
    assert peer.lines(b"CONT\t5\tAA==\n") == [b"FAIL\t5\treason=this request is not known, or has its answer"]
    assert len(peer.lines(b"CONT\t5\tAA==\n" * 10_000)) == 10_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"VERSION\t2\t0\n", "version 2 of the protocol"),
        (b"GET / HTTP/1.1\r\n", "unknown command"),
        (b"\n", "unknown command"),
        (b"\x16\x03\x01\x00\n", "unknown command"),
        (b"A" * 1_000_000, "a line is longer than 16384 octets"),
        (b"AUTH\t1\tLOGIN\nAUTH\t1\tLOGIN\n", "AUTH with the id of a request that has no answer yet"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_left(data: bytes, reason: str) -> None:
    peer = Peer()
    peer.send(data)
    assert peer.done
    assert peer.channel.closed
    assert peer.channel.logged == [("protocol-error", {"reason": reason})]
    assert not peer.channel.timers


@pytest.mark.parametrize(
    "rip",
    [b"localhost", b"unknown", b"192.0.2.1/24", b"192.0.2.256", b"fe80::1%", b"fe80::1%a%b", b" 192.0.2.1",
     b"192.0.2.1\x01l", b"\xff\xfe", b"1" * 16_000, b"3221225985", b"[2001:db8::1]"],
    ids=["name", "unknown", "network", "octet", "no-zone", "zones", "space", "line", "not-utf-8", "long", "number", "brackets"],
)  # fmt: skip
def test_a_client_without_an_address_is_refused_and_the_others_are_served(rip: bytes) -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    peer.send(auth(1))
    bad = b"AUTH\t%d\tPLAIN\tservice=smtp\trip=%b\tresp=%b\n"
    for number in (2, 3):
        assert peer.lines(bad % (number, rip, ANNA)) == [b"FAIL\t%d\treason=rip is no IP address" % number]
    assert peer.channel.logged == [("bad-request", {"reason": "rip is no IP address"})]
    slow.waiting[0].callback(None)
    assert peer.answers() == [b"OK\t1\tuser=anna@example.test"]
    assert len(slow.waiting) == 1, "the others are not checked"


def test_a_request_that_must_name_its_client() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    peer.channel.facts = attrs.evolve(peer.channel.facts, client_address_required=True)
    refusal = b'FAIL\t%d\treason=rip is missing, and client_address = "required" demands it'
    peer.send(auth(1))
    assert peer.lines(auth(2, parameters=b"service=smtp")) == [refusal % 2]
    assert peer.lines(auth(3, parameters=b"service=smtp\trip=")) == [refusal % 3]
    assert logged(peer) == ["bad-request"], "once"
    slow.waiting[0].callback(None)
    assert peer.answers() == [b"OK\t1\tuser=anna@example.test"]
    assert len(slow.waiting) == 1, "the others are not checked"


def test_a_message_out_of_turn_ends_its_own_request_alone() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    peer.send(auth(1) + auth(2) + b"AUTH\t3\tLOGIN\n")
    peer.take()
    refusal = b"FAIL\t1\treason=this request waits for no message"
    assert peer.lines(b"CONT\t1\tAA==\n") == [refusal]
    assert slow.cancelled == 1, "the password is not checked on"
    assert peer.lines(b"CONT\t1\tAA==\n")[0].startswith(b"FAIL\t1\treason=this request is not known")
    slow.waiting[1].callback(None)
    assert peer.answers() == [b"OK\t2\tuser=anna@example.test"]
    assert peer.lines(b"CONT\t3\tYW5uYUBleGFtcGxlLnRlc3Q=\n")[0].startswith(b"CONT\t3\t")
    assert not peer.done
    assert peer.lines(auth(1)) == [], "its number may be used again"
    slow.waiting[2].callback(None)
    assert peer.answers() == [b"OK\t1\tuser=anna@example.test"]


def test_messages_out_of_turn_while_a_check_cannot_be_cancelled() -> None:
    stuck: list[Deferred[None]] = []

    class Stuck(FakeAuthenticator):
        async def login(self, claim: Claim, context: LoginContext) -> User:
            stuck.append(Deferred())
            await stuck[-1]
            return await super().login(claim, context)

    peer = Peer(Stuck())
    answers = peer.lines(auth(1) + b"CONT\t1\tAA==\n" * 1_000)
    assert len(answers) == 1_000
    assert [line for line in answers if not line.startswith(b"FAIL\t1\t")] == []
    stuck[0].callback(None)
    assert peer.answers() == [], "it has its answer"
    assert not peer.done


def test_a_peer_that_is_gone_waits_for_nothing() -> None:
    slow = SlowAuthenticator()
    peer = Peer(slow)
    peer.lines(b"".join(auth(number) for number in range(1, 20)) + b"AUTH\t20\tLOGIN\n")
    peer.hang_up()
    assert peer.done
    assert slow.cancelled == 19
    assert not peer.channel.timers


def test_a_line_that_does_not_end() -> None:
    peer = Peer()
    peer.send(b"AUTH\t1\tPL")
    peer.wait(Limits().transfer_timeout + 1)
    assert peer.done
    assert logged(peer) == ["protocol-error"]


def test_an_idle_connection_stays_for_long() -> None:
    peer = Peer()
    peer.wait(sessions.IDLE_TIME - 1)
    assert peer.lines(auth(1)) == [b"OK\t1\tuser=anna@example.test"]
    peer.wait(sessions.IDLE_TIME + 1)
    assert peer.done


ids = st.integers(0, 4)
words = st.one_of(
    ids.map(auth),
    ids.map(lambda n: auth(n, WRONG)),
    ids.map(lambda n: b"AUTH\t%d\tLOGIN\n" % n),
    ids.map(lambda n: b"CONT\t%d\tYW5uYUBleGFtcGxlLnRlc3Q=\n" % n),
    ids.map(lambda n: b"CANCEL\t%d\n" % n),
    st.binary(max_size=12),
)


@settings(max_examples=200)
@given(st.lists(words, max_size=12), st.lists(st.integers(0, 11), max_size=6))
def test_whatever_a_peer_sends(sent: list[bytes], finished: list[int]) -> None:
    """Every AUTH has one answer at most, and at the end nothing is left."""
    slow = SlowAuthenticator()
    peer = Peer(slow)
    got = peer.lines(b"".join(sent))
    for at in finished:
        if at < len(slow.waiting) and not slow.waiting[at].called:
            slow.waiting[at].callback(None)
    got += peer.answers()
    peer.wait(Limits().login_time + ANSWER_TIME + 1)
    got += peer.answers()
    begun = sum(part.startswith(b"AUTH\t") for part in sent)
    assert sum(line.startswith(b"OK\t") for line in got) <= begun
    peer.hang_up()
    assert peer.done
    assert not peer.channel.timers
    assert not peer.channel.bugs
    session = peer.session
    assert not session._exchanges
    assert not session._of_client
