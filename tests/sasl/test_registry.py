"""What holds for every mechanism of the table, and where each is offered."""

import re

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.sasl.mechanism import Challenge, Credentials, Done, Failed, Mechanism, NeedKeys
from mailserver.sasl.registry import MECHANISMS, Mechanisms, Situation
from mailserver.sasl.scram import Scram
from mailserver.sasl.scram_keys import ScramKeys

ALL = Situation(bytes(32), "anna@example.test", frozenset({"SHA-256", "SHA-1"}), trusts_certificates=True)


def start(name: str) -> Mechanism:
    mechanism = Mechanisms(MECHANISMS).start(name, ALL)
    assert mechanism is not None
    return mechanism


def test_names_are_sasl_names() -> None:
    # RFC 4422 3.1: 1 to 20 upper-case letters, digits, hyphens, underscores.
    assert all(re.fullmatch(r"[A-Z0-9_-]{1,20}", name) for name in MECHANISMS)


@given(
    st.sampled_from(sorted(MECHANISMS)),
    st.lists(st.none() | st.binary(max_size=30) | st.text("a\0é", max_size=8).map(str.encode), max_size=5),
)
@settings(max_examples=200)
def test_any_bytes_are_answered_and_what_is_done_is_whole(name: str, messages: list[bytes | None]) -> None:
    mechanism = start(name)
    over = False
    for message in messages:
        outcome = mechanism.step(message)
        if isinstance(outcome, NeedKeys):
            outcome = outcome.take(ScramKeys(1, b"s", bytes(32), bytes(32)))
        assert isinstance(outcome, Challenge | Done | Failed)
        if over:
            assert isinstance(outcome, Failed)
        if isinstance(outcome, Done):
            claim = outcome.claim
            assert claim.name
            assert "\0" not in claim.name + claim.authorization
            if isinstance(claim, Credentials):
                assert claim.password.reveal()
                assert b"\0" not in claim.password.reveal()
        over = over or not isinstance(outcome, Challenge)


def test_exchanges_do_not_share_state() -> None:
    for name in MECHANISMS:
        first, second = start(name), start(name)
        assert not isinstance(first.step(b"\xff"), Challenge)
        assert isinstance(second.step(None), Challenge)


def test_offered_where_it_can_succeed() -> None:
    mechanisms = Mechanisms(MECHANISMS)
    passwords = ["PLAIN", "LOGIN"]
    assert mechanisms.offered(ALL) == list(MECHANISMS)
    assert mechanisms.offered(Situation()) == passwords
    assert mechanisms.offered(evolve(ALL, certified="")) == list(MECHANISMS)[1:]
    assert mechanisms.offered(evolve(ALL, trusts_certificates=False)) == list(MECHANISMS)[1:]
    assert mechanisms.offered(evolve(ALL, scram_hashes=frozenset())) == ["EXTERNAL", *passwords]
    # In clear text, where only what sends no password may come.
    assert mechanisms.offered(evolve(ALL, passwords=False, binding=None, certified="")) == [
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
    ]
    sha256 = evolve(ALL, scram_hashes=frozenset({"SHA-256"}), certified="")
    assert mechanisms.offered(sha256) == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", *passwords]
    assert mechanisms.offered(evolve(sha256, binding=None)) == ["SCRAM-SHA-256", *passwords]


def test_only_what_is_offered_starts() -> None:
    assert Mechanisms(["PLAIN"]).start("LOGIN", ALL) is None
    assert Mechanisms(["PLAIN"]).start("plain", ALL) is None
    assert Mechanisms(MECHANISMS).start("EXTERNAL", Situation()) is None
    assert Mechanisms(MECHANISMS).start("SCRAM-SHA-256-PLUS", evolve(ALL, binding=None)) is None


def test_a_downgrade_is_one_where_plus_was_offered() -> None:
    for names, refused in ((MECHANISMS, True), (["SCRAM-SHA-256", "PLAIN"], False)):
        mechanism = Mechanisms(names).start("SCRAM-SHA-256", ALL)
        assert isinstance(mechanism, Scram)
        assert isinstance(mechanism.step(b"y,,n=anna,r=abc"), Failed) is refused
