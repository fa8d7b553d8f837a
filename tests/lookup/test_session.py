"""The maps, asked over a connection."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from mailserver.auth.interfaces import DomainEntry, Entry, Resolution, User
from mailserver.config.model import Limits
from mailserver.errors import AuthUnavailable
from mailserver.lookup.maps import Services
from mailserver.lookup.session import IDLE_TIME, LookupSession
from mailserver.lookup.wire import MAX_REPLY, netstring
from mailserver.smtp.address import Address
from mailserver.smtp.postmaster import Postmaster
from mailserver.smtp.transaction import find_recipients
from tests.fakes import Client, FakeAuthenticator, info


class Agent(Client):
    """The transfer agent."""

    def __init__(self, authenticator: FakeAuthenticator | None = None, postmaster: str = "") -> None:
        self.authenticator = authenticator or world()
        self.services = Services(
            authenticator=self.authenticator,
            find_recipients=lambda local, domain: find_recipients(
                self.authenticator, Address(local, domain), "+", Postmaster(postmaster)
            ),
            detail_separator="+",
            default_domain="example.test",
            limits=Limits(),
        )
        super().__init__(
            lambda channel: LookupSession(channel, lambda: self.services), info("lookup", peer=None, peer_port=0)
        )

    def look_up(self, name: str, key: str | bytes) -> str:
        """The reply, without its length."""
        octets = key if isinstance(key, bytes) else key.encode()
        (reply,) = replies(self.ask(netstring(name.encode() + b" " + octets)))
        return reply


def replies(data: bytes) -> list[str]:
    found = []
    while data:
        length, _colon, rest = data.partition(b":")
        found.append(rest[: int(length)].decode())
        assert rest[int(length) : int(length) + 1] == b","
        data = rest[int(length) + 1 :]
    return found


def world() -> FakeAuthenticator:
    authenticator = FakeAuthenticator(
        {f"{name}@example.test": "" for name in ("anna", "ben", 'q"(x', "cleo")} | {"dora@dash.test": "", "bare": ""}
    )
    authenticator.entries = {
        "info@example.test": Entry(
            ("anna@example.test", "ben+mail@example.test"), frozenset({"anna@example.test", "ben@example.test"})
        ),
        "all@example.test": Entry(("info@example.test", "cleo@example.test")),
        "out@example.test": Entry(("anna@example.test", "far@elsewhere.example")),
        "mixed@example.test": Entry(("dora@dash.test",), frozenset({"a,b@example.test", "dora@dash.test"})),
        "loop@example.test": Entry(("pool@example.test",)),
        "pool@example.test": Entry(("loop@example.test",)),
        "odd@example.test": Entry(('q"(x@example.test',)),
        "@example.org": Entry(("cleo@example.test",)),
    }
    authenticator.domain_entries = {
        "alias.test": DomainEntry(alias_of="example.test"),
        "dash.test": DomainEntry(detail="-"),
        "plain.test": DomainEntry(detail=""),
    }
    return authenticator


@pytest.mark.parametrize(
    ("name", "key", "reply"),
    [
        ("domain", "example.test", "OK example.test"),
        ("domain", "EXAMPLE.test", "OK EXAMPLE.test"),
        ("domain", "alias.test", "OK alias.test"),
        ("domain", "dash.test", "OK dash.test"),
        ("domain", "elsewhere.example", "NOTFOUND "),
        ("domain", "sub.example.test", "NOTFOUND "),
        ("domain", ".example.test", "NOTFOUND "),
        ("domain", "", "NOTFOUND "),
        ("domain", "[192.0.2.1]", "NOTFOUND "),
        ("mailbox", "anna@example.test", "OK anna@example.test"),
        ("mailbox", "Anna+Lists@Example.Test", "OK anna@example.test"),
        ("mailbox", "all@example.test", "OK anna@example.test, ben@example.test, cleo@example.test"),
        ("mailbox", "anna@alias.test", "OK anna@example.test"),
        ("mailbox", "anyone@example.org", "OK cleo@example.test"),
        ("mailbox", "nobody@example.test", "NOTFOUND "),
        ("mailbox", "out@example.test", "NOTFOUND "),
        ("mailbox", "@example.org", "NOTFOUND "),
        ("mailbox", "anna", "NOTFOUND "),
        ("mailbox", "anna@", "NOTFOUND "),
        ("mailbox", "", "NOTFOUND "),
        ("alias", "anna@example.test", "OK anna@example.test"),
        ("alias", "ANNA@example.test", "OK anna@example.test"),
        ("alias", "anna+Lists@example.test", "OK anna+Lists@example.test"),
        ("alias", "info@example.test", "OK anna@example.test, ben+mail@example.test"),
        ("alias", "info+Sale@example.test", "OK anna+Sale@example.test, ben+mail@example.test"),
        ("alias", "all@example.test", "OK anna@example.test, ben+mail@example.test, cleo@example.test"),
        ("alias", "out@example.test", "OK anna@example.test, far@elsewhere.example"),
        ("alias", "anna@alias.test", "OK anna@example.test"),
        ("alias", "mixed+x@example.test", "OK dora-x@dash.test"),
        ("alias", "dora-x@dash.test", "OK dora-x@dash.test"),
        ("alias", "nobody@example.test", "NOTFOUND "),
        ("alias", "anyone@example.org", "OK cleo@example.test"),
        ("alias", "@example.org", "NOTFOUND "),
        ("alias", "anna", "NOTFOUND "),
        ("alias", "bare", "NOTFOUND "),
        ("alias", "anna@elsewhere.example", "NOTFOUND "),
        ("alias", "odd@example.test", r'OK "q\"(x"@example.test'),
        ("alias", r'"q\"(x"@example.test', r'OK "q\"(x"@example.test'),
        ("alias", '"anna"@example.test', "OK anna@example.test"),
        ("alias", 'anna space"@example.test', "NOTFOUND "),
        ("alias", "a b@c d", "NOTFOUND "),
        ("sender", "anna@example.test", "OK anna@example.test"),
        ("sender", "info@example.test", "OK anna@example.test,ben@example.test"),
        ("sender", "all@example.test", "NOTFOUND "),
        ("sender", "mixed@example.test", "OK dora@dash.test"),
        ("sender", "nobody@example.test", "NOTFOUND "),
        ("sender", "anna@elsewhere.example", "NOTFOUND "),
        ("sender", "@example.test", "NOTFOUND "),
        ("sender", "anna", "NOTFOUND "),
    ],
)
def test_answers(name: str, key: str, reply: str) -> None:
    assert Agent().look_up(name, key) == reply


def test_loops_and_unknown_maps_are_refused() -> None:
    agent = Agent()
    assert agent.look_up("alias", "loop@example.test") == "PERM the aliases of this address lead round in a loop"
    assert agent.look_up("mailbox", "loop@example.test").startswith("PERM ")
    assert agent.look_up("virtual", "a@example.test") == (
        "PERM there is no such map: the maps are domain, mailbox, alias, sender"
    )
    assert agent.look_up("", "a@example.test").startswith("PERM ")
    assert agent.look_up("alias", "anna@example.test") == "OK anna@example.test", "the connection goes on"


@pytest.mark.parametrize("name", ["domain", "mailbox", "alias", "sender"])
def test_a_back_end_that_is_away(name: str) -> None:
    agent = Agent()
    key = "elsewhere.example" if name == "domain" else "anna@example.test"
    before = agent.look_up(name, key)
    agent.authenticator.error = AuthUnavailable()
    assert agent.look_up(name, key) == "TEMP addresses cannot be looked up at the moment"
    agent.authenticator.error = None
    assert agent.look_up(name, key) == before


@pytest.mark.parametrize(
    "key",
    [b"a\0@example.test", b"\xff@example.test", b"a@example.test\n", b"x" * 65536 + b"@example.test", b" ", b"  @ "],
)
@pytest.mark.parametrize("name", ["domain", "mailbox", "alias", "sender"])
def test_keys_that_are_no_addresses(name: str, key: bytes) -> None:
    agent = Agent()
    assert agent.look_up(name, key) == "NOTFOUND "
    assert agent.look_up("mailbox", "anna@example.test") == "OK anna@example.test", "the stream is in step"


def test_postmaster_and_abuse_as_lmtp_has_them() -> None:
    agent = Agent()
    assert agent.look_up("alias", "postmaster@example.test") == "OK postmaster@example.test"
    assert agent.look_up("mailbox", "Postmaster@alias.test").startswith("OK ")
    agent = Agent(postmaster="ben@example.test")
    assert agent.look_up("alias", "abuse+x@example.test") == "OK ben+x@example.test"
    assert agent.look_up("mailbox", "abuse@example.test") == "OK ben@example.test"
    assert agent.look_up("mailbox", "abuse@elsewhere.example") == "NOTFOUND "


def test_a_group_whose_members_do_not_fit_is_left_to_lmtp() -> None:
    names = [f"{'x' * 200}{number}@example.test" for number in range(900)]
    authenticator = FakeAuthenticator(dict.fromkeys(names, ""))
    authenticator.entries = {
        "big@example.test": Entry(tuple(names), frozenset(names)),
        "out@example.test": Entry(("far@elsewhere.example", *names)),
    }
    agent = Agent(authenticator)
    assert agent.look_up("alias", "Big@example.test") == "OK Big@example.test"
    assert agent.look_up("mailbox", "big@example.test").startswith(f"OK {names[0]}, ")
    assert agent.look_up("alias", "out@example.test").startswith("PERM ")
    assert agent.look_up("sender", "big@example.test").startswith("PERM ")
    authenticator.entries["big@example.test"] = Entry(tuple(names[:400]))
    assert MAX_REPLY * 0.8 < len(agent.look_up("alias", "big@example.test")) <= MAX_REPLY


def test_details_of_a_domain_without_any() -> None:
    authenticator = world()
    authenticator.users["eve@plain.test"] = ""
    authenticator.entries["to@example.test"] = Entry(("eve@plain.test",))
    agent = Agent(authenticator)
    assert agent.look_up("alias", "to+x@example.test") == "OK eve@plain.test"


@pytest.mark.parametrize(("domain", "reply"), [("example.test", "OK anna@example.test"), ("", "OK anna@example.org")])
def test_users_without_a_domain(domain: str, reply: str) -> None:
    agent = Agent()

    async def find(_local: str, _domain: str) -> Resolution:
        return Resolution(((User("anna"), ""),))

    agent.services = evolve(agent.services, find_recipients=find, default_domain=domain)
    assert agent.look_up("alias", "anna@example.org") == reply


def test_requests_that_are_sent_ahead_are_answered_in_their_order() -> None:
    agent = Agent()
    keys = ["anna@example.test", "nobody@example.test", "info@example.test"] * 50
    alone = [agent.look_up("alias", key) for key in keys]
    assert replies(agent.ask(b"".join(netstring(f"alias {key}".encode()) for key in keys))) == alone
    assert agent.channel.drains >= 2 * len(keys), "other clients have their turn in between"


def test_what_breaks_the_protocol_is_refused_and_ends_the_connection() -> None:
    agent = Agent()
    got = replies(agent.ask(netstring(b"alias anna@example.test") + b"1073741824:alias ben@example.test,"))
    assert got == ["OK anna@example.test", "PERM a request is longer than 100000 octets"]
    assert agent.done
    assert agent.channel.closed
    assert agent.channel.logged == [("protocol-error", {"reason": "a request is longer than 100000 octets"})]


def test_times() -> None:
    agent = Agent()
    agent.wait(IDLE_TIME - 1)
    assert agent.look_up("alias", "anna@example.test") == "OK anna@example.test", "an idle connection stays open"
    agent.send(b"24:alias anna")
    agent.wait(Limits().transfer_timeout + 1)
    assert agent.done
    assert re.search("does not end in time", agent.take().decode())
    agent = Agent()
    agent.wait(IDLE_TIME + 1)
    assert agent.done
    assert not agent.channel.logged
