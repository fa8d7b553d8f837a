"""Messages of the queue at a hop that does what it is told: an outcome for each recipient, whatever the hop does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.errors import RelayDown, StoreUnavailable
from mailserver.sasl.mechanism import Credentials
from mailserver.smtp.address import Address
from mailserver.smtp.onward import OnwardExchange, OnwardRecipient, TLSUse
from mailserver.smtp.onward_transaction import ANSWER_TIME, TIMES, OnwardSession, OutgoingMessage
from mailserver.types import Secret
from tests.fakes import run_now
from tests.smtp.world import FakeHop

SENDER = Address("anna", "example.test")
TEXT = b"From: anna@example.test\r\n\r\n.dotted\r\nend\r\n"
ALL = (b"PIPELINING", b"8BITMIME", b"SIZE 1000000", b"SMTPUTF8", b"DSN")
PLAIN = (b"SIZE 1000000",)


class Hop(FakeHop):
    """With the times that a queue waits; TLS can fail, and an early reply can come within the message."""

    early = b""
    """A reply while the message comes."""
    tls_fails = False

    def __init__(self, *extensions: bytes, **more: Any) -> None:
        super().__init__(extensions or ALL, **more)
        self.times: list[float] = []

    def _reset(self) -> None:
        super()._reset()
        self._lost = not self._output

    def _say(self, answer: bytes) -> None:
        super()._say(answer)
        if answer.startswith(b"354") and self.lines[-1] != b"DATA":
            self._data = None

    async def read(self, timeout: float, *, goes_on: bool = False) -> bytes:
        self.times.append(timeout)
        return await super().read(self.timeout, goes_on=goes_on)

    async def start_tls(self) -> None:
        if self.tls_fails:
            raise RelayDown("the handshake fails")
        await super().start_tls()

    async def drain(self) -> None:
        await super().drain()
        if self._data and self.early:
            self._output, self.early, self._lost = self.early, b"", True


def to(*names: str, notify: str = "", orcpt: str = "") -> list[OnwardRecipient]:
    return [OnwardRecipient(Address(name, "example.net"), notify, orcpt) for name in names]


def message(text: bytes = TEXT, **more: Any) -> OutgoingMessage:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(text), 10):
            yield text[at : at + 10]

    return OutgoingMessage(**{"sender": SENDER, "size": len(text), "pieces": pieces} | more)


def session(hop: Hop, *, tls: TLSUse = "offered", **more: Any) -> OnwardSession:
    exchange = OnwardExchange("mail.example.test", tls=tls, **more)
    run_now(hop.connect())
    return OnwardSession(exchange, hop, "hop[192.0.2.1]")


def opened(hop: Hop, **more: Any) -> OnwardSession:
    made = session(hop, **more)
    assert run_now(made.open()) is None
    return made


def results(hop: Hop, *names: str, **more: Any) -> list[tuple[str, str]]:
    outcomes = run_now(opened(hop).send(message(**more), to(*names)))
    return [(each.result, each.status) for each in outcomes]


def test_all_in_one_piece() -> None:
    hop = Hop()
    made = opened(hop)
    outcomes = run_now(
        made.send(
            message(ret="HDRS", envid="a+3Db"), to("x", "y", notify="SUCCESS,DELAY", orcpt="rfc822;z@example.org")
        )
    )
    assert [each.result for each in outcomes] == ["passed_on", "passed_on"]
    assert outcomes[0].hop == "hop[192.0.2.1]"
    assert hop.lines[1:] == [
        b"MAIL FROM:<anna@example.test> SIZE=%d BODY=8BITMIME RET=HDRS ENVID=a+3Db" % len(TEXT),
        b"RCPT TO:<x@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;z@example.org",
        b"RCPT TO:<y@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;z@example.org",
        b"DATA",
    ]
    assert hop.messages == [TEXT]
    assert len([each for each in hop.written if b"MAIL" in each and b"RCPT" in each]) == 1
    assert made.is_usable
    assert set(hop.times) == {ANSWER_TIME, TIMES["data"], TIMES["message"]}


def test_a_hop_with_less() -> None:
    hop = Hop(*PLAIN)
    outcomes = run_now(opened(hop).send(message(ret="FULL", envid="x"), to("x", "y", notify="NEVER")))
    assert [each.result for each in outcomes] == ["relayed", "relayed"]
    assert hop.lines[1:4] == [
        b"MAIL FROM:<anna@example.test> SIZE=%d" % len(TEXT),
        b"RCPT TO:<x@example.net>",
        b"RCPT TO:<y@example.net>",
    ]
    assert not [each for each in hop.written if b"MAIL" in each and b"RCPT" in each]


def test_the_null_sender() -> None:
    hop = Hop()
    assert results(hop, "x", sender=None) == [("passed_on", "2.0.0")]
    assert hop.lines[1].startswith(b"MAIL FROM:<> ")


@pytest.mark.parametrize("extensions", [ALL, PLAIN], ids=["pipelining", "one by one"])
def test_each_recipient_has_its_outcome(extensions: tuple[bytes, ...]) -> None:
    hop = Hop(
        *extensions,
        replies={
            b"RCPT TO:<no@": b"550 5.1.1 nobody\r\n",
            b"RCPT TO:<later@": b"450 4.2.1 busy\r\n",
            b"RCPT TO:<many@": b"452 4.5.3 too many\r\n",
        },
    )
    outcomes = run_now(opened(hop).send(message(), to("no", "yes", "later", "many")))
    accepted = "passed_on" if extensions is ALL else "relayed"
    assert [(each.result, each.status, each.code) for each in outcomes] == [
        ("failed", "5.1.1", 550),
        (accepted, "2.0.0", 250),
        ("deferred", "4.2.1", 450),
        ("again", "4.5.3", 452),
    ]
    assert outcomes[0].diagnostic == "550 5.1.1 nobody"
    assert hop.messages == [TEXT]


def test_nobody_accepted_means_no_data_and_the_session_goes_on() -> None:
    hop = Hop(replies={b"RCPT TO:<no@": b"550 5.1.1 nobody\r\n"})
    made = opened(hop)
    assert [each.result for each in run_now(made.send(message(), to("no", "no")))] == ["failed", "failed"]
    assert hop.lines[-1] == b"RSET"
    assert [each.result for each in run_now(made.send(message(), to("yes")))] == ["passed_on"]
    assert hop.messages == [TEXT]
    assert made.messages == 2


@pytest.mark.parametrize("extensions", [ALL, PLAIN], ids=["pipelining", "one by one"])
@pytest.mark.parametrize(
    ("beginning", "reply", "result", "usable"),
    [
        (b"MAIL", b"550 5.7.1 not you\r\n", "failed", True),
        (b"MAIL", b"451 4.3.0 later\r\n", "deferred", True),
        (b"MAIL", b"421 4.3.2 bye\r\n", "deferred", False),
        (b"RCPT", b"421 4.3.2 bye\r\n", "deferred", False),
        (b"DATA", b"554 5.5.1 no\r\n", "failed", True),
        (b"DATA", b"451 4.3.0 no\r\n", "deferred", True),
        (b"DATA", b"250 what\r\n", "deferred", False),
        (b".", b"552 5.3.4 too big\r\n", "failed", True),
        (b".", b"451 4.3.0 later\r\n", "deferred", True),
        (b".", b"421 4.3.2 bye\r\n", "deferred", False),
        (b".", b"354 go on\r\n", "deferred", True),
    ],
)
def test_refusals(beginning: bytes, reply: bytes, result: str, usable: bool, extensions: tuple[bytes, ...]) -> None:
    hop = Hop(*extensions, replies={beginning: reply})
    made = opened(hop)
    outcomes = run_now(made.send(message(), to("x", "y")))
    assert [each.result for each in outcomes] == [result] * 2
    assert outcomes[0].code == int(reply[:3])
    assert made.is_usable is usable


@pytest.mark.parametrize("extensions", [ALL, PLAIN], ids=["pipelining", "one by one"])
@pytest.mark.parametrize("beginning", [b"greeting", b"EHLO", b"MAIL", b"RCPT TO:<x", b"RCPT TO:<y", b"DATA", b"."])
def test_a_connection_that_is_cut(beginning: bytes, extensions: tuple[bytes, ...]) -> None:
    hop = Hop(*extensions, replies={beginning: b"", b"RCPT TO:<no@": b"550 5.1.1 nobody\r\n"})
    made = session(hop)
    run_now(made.open())
    outcomes = run_now(made.send(message(), to("no", "x", "y")))
    late = beginning in {b"RCPT TO:<x", b"RCPT TO:<y", b"DATA", b"."}
    early = beginning in {b"greeting", b"EHLO"}
    assert [each.result for each in outcomes[1:]] == ["hop_failed" if early else "deferred"] * 2
    assert outcomes[0].result == ("failed" if late else "hop_failed" if early else "deferred")
    assert outcomes[1].may_have_arrived is (beginning == b".")
    assert not made.is_usable
    assert hop.closed
    assert [each.result for each in run_now(made.send(message(), to("x")))] == ["hop_failed"]


@pytest.mark.parametrize(
    "replies",
    [{b"greeting": b"554 5.7.1 not you\r\n"}, {b"EHLO": b"421 busy\r\n"}, {b"AUTH": b"535 5.7.8 who?\r\n"}],
    ids=["greeting", "ehlo", "auth"],
)
def test_a_refusal_before_mail_is_the_hops_fault(replies: dict[bytes, bytes]) -> None:
    hop = Hop(b"AUTH PLAIN", replies=replies)
    failure = run_now(session(hop, credentials=Credentials("us", Secret(b"pass"))).open())
    assert failure is not None
    [reply] = replies.values()
    assert (failure.result, failure.code, failure.status[0]) == ("hop_failed", int(reply[:3]), "4")
    assert hop.closed == 1


@pytest.mark.parametrize(
    "replies",
    [{b"greeting": b"220 Mail.Example.TEST ESMTP\r\n"}, {b"EHLO": b"250 mail.example.test.\r\n"}],
    ids=["greeting", "ehlo"],
)
def test_a_hop_that_is_this_server(replies: dict[bytes, bytes]) -> None:
    failure = run_now(session(Hop(replies=replies), found_by_mx=True).open())
    assert failure is not None
    assert (failure.result, failure.status) == ("failed", "5.4.6")
    assert run_now(session(Hop(replies=replies)).open()) is None, "a relay on this machine may share its name"


def test_a_hop_without_ehlo() -> None:
    hop = Hop(replies={b"EHLO": b"502 5.5.1 what?\r\n", b"HELO": b"250 hop\r\n"})
    outcomes = run_now(opened(hop).send(message(), to("x")))
    assert [each.result for each in outcomes] == ["relayed"]
    assert hop.lines[:3] == [b"EHLO mail.example.test", b"HELO mail.example.test", b"MAIL FROM:<anna@example.test>"]
    assert run_now(session(Hop(replies=hop.replies), tls="required").open()) is not None


def test_tls_where_it_is_offered() -> None:
    hop = Hop(*ALL, b"STARTTLS")
    opened(hop)
    assert hop.tls
    assert hop.lines == [b"EHLO mail.example.test", b"STARTTLS", b"EHLO mail.example.test"]
    plain = Hop()
    opened(plain)
    assert not plain.tls
    never = Hop(*ALL, b"STARTTLS")
    opened(never, tls="never")
    assert not never.tls


def test_tls_that_the_hop_cannot_do_now() -> None:
    replies = {b"STARTTLS": b"454 4.7.0 not now\r\n"}
    hop = Hop(b"STARTTLS", replies=replies)
    assert [each.result for each in run_now(opened(hop).send(message(), to("x")))] == ["relayed"]
    assert not hop.tls
    refused = run_now(session(Hop(b"STARTTLS", replies=replies), tls="required").open())
    assert refused is not None
    assert (refused.result, refused.code, refused.stage) == ("hop_failed", 454, "starttls")
    missing = run_now(session(Hop(), tls="required").open())
    assert missing is not None
    assert missing.result == "hop_failed"


def test_a_handshake_that_fails() -> None:
    hop = Hop(b"STARTTLS")
    hop.tls_fails = True
    failure = run_now(session(hop).open())
    assert failure is not None
    assert (failure.result, failure.stage, failure.text) == ("hop_failed", "starttls", "the handshake fails")


def test_what_the_hop_cannot_take() -> None:
    assert results(Hop(*PLAIN), "x", "y", utf8=True) == [("failed", "5.6.7")] * 2
    assert results(Hop(*PLAIN), "x", eight_bit=True) == [("failed", "5.6.3")]
    hop = Hop(b"SIZE 10")
    assert results(hop, "x") == [("failed", "5.3.4")]
    assert hop.lines == [b"EHLO mail.example.test"]
    whole = Hop()
    assert results(whole, "x", utf8=True, eight_bit=True) == [("passed_on", "2.0.0")]
    assert whole.lines[1].endswith(b" BODY=8BITMIME SMTPUTF8")


def test_a_reply_before_the_end_of_the_message() -> None:
    hop = Hop()
    hop.early = b"552 5.3.4 enough\r\n"
    made = opened(hop)
    [outcome] = run_now(made.send(message(), to("x")))
    assert (outcome.result, outcome.code) == ("failed", 552)
    assert hop.messages == []
    assert [each.result for each in run_now(made.send(message(), to("x")))] == ["hop_failed"]
    lying = Hop()
    lying.early = b"250 2.0.0 thanks\r\n"
    [outcome] = run_now(opened(lying).send(message(), to("x")))
    assert outcome.result == "deferred", "nobody has the end of the message"


def test_a_message_that_cannot_be_read_breaks_off() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"Subject: half\r\n"
        raise StoreUnavailable

    hop = Hop()
    made = opened(hop)
    with pytest.raises(StoreUnavailable):
        run_now(made.send(message(pieces=pieces), to("x")))
    assert hop.messages == []
    assert b"QUIT" not in b"".join(hop.written)
    assert hop.closed == 1
    assert not made.is_usable


def test_quit_only_where_a_command_may_stand() -> None:
    hop = Hop()
    made = opened(hop)
    made.close()
    assert hop.lines[-1] == b"QUIT"
    assert not made.is_usable


CODES = st.sampled_from([200, 220, 235, 250, 251, 299, 334, 354, 399, 421, 450, 451, 452, 499, 500, 550, 552, 554, 599])
COMMANDS = (b"greeting", b"EHLO", b"STARTTLS", b"MAIL", b"RCPT TO:<a@", b"RCPT TO:<b@", b"RSET", b"DATA", b".")


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(COMMANDS), CODES, max_size=4),
    st.sets(st.sampled_from([b"PIPELINING", b"STARTTLS", b"DSN", b"8BITMIME"])),
)
def test_any_replies(codes: dict[bytes, int], extensions: set[bytes]) -> None:
    """Nobody is said to have a message that the hop has not accepted at its end, or not to have one that it has."""
    hop = Hop(b"SIZE", *sorted(extensions), replies={word: b"%d said\r\n" % code for word, code in codes.items()})
    made = session(hop)
    if run_now(made.open()) is None:
        outcomes = run_now(made.send(message(), to("a", "b")))
        assert len(outcomes) == 2
        has_it = bool(hop.messages) and codes.get(b".", 250) // 100 == 2
        for name, outcome in zip((b"a", b"b"), outcomes, strict=True):
            accepted = codes.get(b"RCPT TO:<%s@" % name, 250) // 100 == 2
            assert (outcome.result in {"relayed", "passed_on"}) is (has_it and accepted)
    else:
        assert hop.messages == []
