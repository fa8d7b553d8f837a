"""Stored SCRAM keys: read, made, refused; and SASLprep by the examples of RFC 4013."""

import pytest

from mailserver.sasl.saslprep import Unpreparable, saslprep
from mailserver.sasl.scram_keys import BadKeys, ScramKeys, make_keys


@pytest.mark.parametrize("hash_name", ["SHA-256", "SHA-1"])
def test_text_is_read_again(hash_name: str) -> None:
    keys = make_keys(hash_name, b"secret", 4096)
    assert ScramKeys.parse(keys.text(), hash_name) == keys
    other = {"SHA-256": "SHA-1", "SHA-1": "SHA-256"}[hash_name]
    with pytest.raises(BadKeys, match="length"):
        ScramKeys.parse(keys.text(), other)


@pytest.mark.parametrize(
    "text", ["", "4096", "a,b,c,d", "0,c2FsdA==,,", "2000001,c2FsdA==,,", "99999999999,,,", "1,é,x,y"]
)
def test_bad_text(text: str) -> None:
    with pytest.raises(BadKeys):
        ScramKeys.parse(text, "SHA-256")


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        # RFC 4013 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # RFC 4013 2.1
        ("a\u00a0b", "a b"),
    ],
)
def test_examples_of_the_rfc(given: str, prepared: str) -> None:
    assert saslprep(given) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "", "\u00ad", "a\u200eb", "\ufffd", "\ue000", "\U0001f600"])
def test_what_cannot_be_prepared(text: str) -> None:
    with pytest.raises(Unpreparable):
        saslprep(text)
