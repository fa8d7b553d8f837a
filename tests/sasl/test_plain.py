"""PLAIN against the examples and the grammar of RFC 4616."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.sasl.mechanism import Challenge, Credentials, Done, Failed
from mailserver.sasl.plain import MAX_RESPONSE, Plain
from mailserver.types import Secret

SAFE = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=60)


def test_example_of_the_rfc() -> None:
    # RFC 4616 4, both examples.
    assert Plain().step(b"\0tim\0tanstaaftanstaaf") == Done(Credentials("tim", Secret(b"tanstaaftanstaaf")))
    assert Plain().step(b"Ursel\0Kurt\0xipj3plmq") == Done(Credentials("Kurt", Secret(b"xipj3plmq"), "Ursel"))


def test_without_initial_response_it_asks_once() -> None:
    mechanism = Plain()
    assert mechanism.step(None) == Challenge(b"")
    assert isinstance(mechanism.step(b"\0u\0p"), Done)
    assert isinstance(mechanism.step(b"\0u\0p"), Failed)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"tim",
        b"tim\0pw",
        b"\0\0pw",
        b"\0tim\0",
        b"\0tim\0pw\0",
        b"\0tim\0p\0w",
        b"\0tim\0pw\0\0",
        b"\0ti\xffm\0pw",
        b"\0tim\0pw\xc0\x80",
        b"\xed\xa0\x80\0tim\0pw",
        b"\0tim\0" + b"p" * MAX_RESPONSE,
    ],
)
def test_what_the_grammar_does_not_allow(message: bytes) -> None:
    mechanism = Plain()
    assert isinstance(mechanism.step(message), Failed)
    assert isinstance(mechanism.step(b"\0tim\0pw"), Failed), "a failed exchange must not go on"


def test_255_octets_in_each_field_are_taken() -> None:
    # RFC 4616 2: MUST accept up to 255 octets.
    done = Plain().step(b"z" * 255 + b"\0" + b"c" * 255 + b"\0" + b"p" * 255)
    assert isinstance(done, Done)


@given(SAFE, SAFE.filter(bool), SAFE.filter(bool))
@settings(max_examples=100)
def test_every_allowed_message_is_read_back(authorization: str, name: str, password: str) -> None:
    done = Plain().step(f"{authorization}\0{name}\0{password}".encode())
    assert done == Done(Credentials(name, Secret(password.encode()), authorization))


def test_truncated_anywhere_it_fails_or_the_password_is_shorter() -> None:
    message = b"a\0name\0secret"
    for length in range(len(message)):
        outcome = Plain().step(message[:length])
        if length <= len(b"a\0name\0"):
            assert isinstance(outcome, Failed)
        else:
            assert outcome == Done(Credentials("name", Secret(message[7:length]), "a"))
