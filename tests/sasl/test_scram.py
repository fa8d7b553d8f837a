"""SCRAM: the exchanges of RFC 5802 5 and RFC 7677 3, another implementation as the client, and whatever breaks a rule."""

import base64
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient
from scramp.core import CbName

from mailserver.sasl.mechanism import Challenge, Done, Failed, NeedKeys, ScramProof
from mailserver.sasl.scram import MAX_MESSAGE, MAX_NONCE, Scram
from mailserver.sasl.scram_keys import ScramKeys, derive, make_keys

BINDING = bytes(range(32))
RFC = {
    # RFC 5802 5
    "SHA-1": (
        "fyko+d2lbbFgONRv9qkxdawL",
        "3rfcNHYJY1ZVvWVs7j",
        "QSXCR+Q6sek8bf92",
        "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    # RFC 7677 3
    "SHA-256": (
        "rOprNGfwEbeRWgbNEkqO",
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
}


@pytest.fixture(autouse=True)
def tls_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """scramp knows the type and refuses it, as Python's ssl cannot tell the octets."""
    monkeypatch.setattr(CbName, "UNSUPPORTED_TYPES", frozenset())
    monkeypatch.setattr(CbName, "SUPPORTED_TYPES", frozenset({"tls-exporter"}))


def keys_asked(step: object) -> NeedKeys:
    assert isinstance(step, NeedKeys), step
    return step


def reason(step: object) -> str:
    assert isinstance(step, Failed), step
    return step.reason


@pytest.mark.parametrize("hash_name", sorted(RFC))
def test_exchange_of_the_rfc(hash_name: str) -> None:
    client_nonce, server_nonce, salt, proof, verifier = RFC[hash_name]
    mechanism = Scram(hash_name, make_nonce=lambda: server_nonce)
    assert mechanism.step(None) == Challenge(b"")
    asked = keys_asked(mechanism.step(f"n,,n=user,r={client_nonce}".encode()))
    assert (asked.name, asked.hash_name) == ("user", hash_name)
    keys = derive(hash_name, b"pencil", base64.b64decode(salt), 4096)
    nonce = client_nonce + server_nonce
    assert asked.take(keys) == Challenge(f"r={nonce},s={salt},i=4096".encode())
    done = mechanism.step(f"c=biws,r={nonce},p={proof}".encode())
    assert isinstance(done, Done)
    assert isinstance(done.claim, ScramProof)
    assert done.claim.fits
    assert done.claim.keys == keys
    assert done.last == f"v={verifier}".encode()
    assert isinstance(mechanism.step(b""), Failed)


class Talk:
    """scramp as the client, up to its last message."""

    def __init__(
        self, mechanism: str = "SCRAM-SHA-256", password: str = "secret", stored: str = "secret", name: str = "anna"
    ) -> None:
        self.hash_name = mechanism.removeprefix("SCRAM-").removesuffix("-PLUS")
        plus = mechanism.endswith("-PLUS")
        self.client: Any = ScramClient(
            [mechanism], name, password, channel_binding=("tls-exporter", BINDING) if plus else None
        )
        self.server = Scram(self.hash_name, binding=BINDING if plus else None)
        self.keys = make_keys(self.hash_name, stored.encode(), 4096)
        self.first = self.client.get_client_first().encode()

    def begin(self) -> None:
        self.asked = keys_asked(self.server.step(self.first))
        self.client.set_server_first(self.asked.take(self.keys).data.decode())
        self.final = self.client.get_client_final().encode()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"])
@pytest.mark.parametrize("password", ["secret", "pä ss:{w}", "\u2168 \u00aa\u00ad"])
def test_another_implementation_gets_in(mechanism: str, password: str) -> None:
    talk = Talk(mechanism, password, password)
    talk.begin()
    done = talk.server.step(talk.final)
    assert isinstance(done, Done)
    assert isinstance(done.claim, ScramProof)
    assert done.claim.fits
    assert done.claim.name == "anna"
    assert done.last is not None
    talk.client.set_server_final(done.last.decode())  # raises where the verifier is wrong


def test_names_with_commas_and_equals_signs() -> None:
    talk = Talk(name="a=2C,b")
    talk.begin()
    assert talk.asked.name == "a=2C,b"
    mechanism = Scram("SHA-256")
    asked = keys_asked(mechanism.step(b"n,a=b=2Cc,n=x=3Dy,r=abc"))
    assert asked.name == "x=y"


def test_identity_to_act_for() -> None:
    mechanism = Scram("SHA-256")
    asked = keys_asked(mechanism.step(b"n,a=ben=2C,n=anna,r=abc"))
    challenge = asked.take(make_keys("SHA-256", b"x", 1)).data.decode()
    nonce = challenge.split(",")[0]
    header = base64.b64encode(b"n,a=ben=2C,").decode()
    done = mechanism.step(f"c={header},{nonce},p={base64.b64encode(bytes(32)).decode()}".encode())
    assert isinstance(done, Done)
    assert done.claim.authorization == "ben,"
    assert isinstance(done.claim, ScramProof)
    assert not done.claim.fits


def test_wrong_password_does_not_fit() -> None:
    talk = Talk(password="wrong")
    talk.begin()
    done = talk.server.step(talk.final)
    assert isinstance(done, Done)
    assert isinstance(done.claim, ScramProof)
    assert not done.claim.fits


FIRST = {
    b"": "client-first",
    b"n": "client-first",
    b"n,,": "expected n=",
    b"n,,n=anna": "expected n=",
    b"n,,r=abc,n=anna": "expected n=",
    b"n,,n=,r=abc": "name",
    b"n,,n=a=2c,r=abc": "name",
    b"n,,n=a=,r=abc": "name",
    b"n,x=y,n=anna,r=abc": "expected a=",
    b"n,a=,n=anna,r=abc": "name",
    b"n,,n=anna,r=": "nonce",
    b"n,,n=anna,r=a c": "nonce",
    b"n,,n=anna,r=" + b"a" * (MAX_NONCE + 1): "nonce",
    "n,,n=anna,r=aé".encode(): "nonce",
    b"n,,m=x,n=anna,r=abc": "extension",
    b"n,,n=anna,r=abc,m=x": "extension",
    b"n,,n=anna,r=abc,xyz": "attribute",
    b"n,,n=an\0na,r=abc": "NUL",
    b"n,,n=an\xffna,r=abc": "UTF-8",
    b"n,,n=" + b"x" * MAX_MESSAGE + b",r=abc": "longer",
    b"q,,n=anna,r=abc": "begins with",
    b"n=x,,n=anna,r=abc": "begins with",
    b"p,,n=anna,r=abc": "begins with",
    b"p=tls-exporter,,n=anna,r=abc": "without -PLUS",
    b"p=tls-unique,,n=anna,r=abc": "tls-exporter",
    b"c=biws,r=abc,p=AAAA": "begins with",
}


@pytest.mark.parametrize("message", FIRST, ids=str)
def test_first_messages_that_break_a_rule(message: bytes) -> None:
    mechanism = Scram("SHA-256")
    assert FIRST[message] in reason(mechanism.step(message))
    assert reason(mechanism.step(b"n,,n=anna,r=abc")) == "the exchange is over"


def final(talk: Talk, old: str, new: str) -> str:
    """Why a last message that is changed is refused."""
    talk.begin()
    text = talk.final.decode()
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    said = reason(talk.server.step(changed.encode("utf-8", "surrogateescape")))
    assert reason(talk.server.step(talk.final)) == "the exchange is over"
    return said


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("^c=[^,]*", "c=eSws", "the start of client-first-message"),  # y,, where it was n,,
        ("^c=[^,]*", "c=", "the start of client-first-message"),
        ("^c=[^,]*", "c=biws" + base64.b64encode(BINDING).decode(), "not base64|the start of client-first-message"),
        ("^c=[^,]*", "c=!!", "not base64"),
        ("^c=", "d=", "expected c="),
        ("r=.", "r=~", "nonce is not that"),
        (",r=[^,]*", "", "expected c="),
        (",p=.*", "", "expected c="),
        (",p=.*", ",p=", "wrong length"),
        (",p=.*", ",p=AAAA", "wrong length"),
        (",p=.", ",p=*", "not base64"),
        (",p=", ",m=x,p=", "extension"),
        (",p=", ",nonsense,p=", "attribute"),
        (",p=", "\0,p=", "NUL"),
        (",p=", "\udcff,p=", "UTF-8"),
        (",p=", f",x={'y' * MAX_MESSAGE},p=", "longer"),
        ("^.*$", "", "expected c="),
        ("^.*$", "n,,n=anna,r=abc", "expected c="),
    ],
)
def test_last_messages_that_break_a_rule(old: str, new: str, word: str) -> None:
    assert re.search(word, final(Talk(), old, new))


def test_binding_of_another_connection() -> None:
    talk = Talk("SCRAM-SHA-256-PLUS")
    talk.server = Scram("SHA-256", binding=bytes(32))
    talk.begin()
    said = reason(talk.server.step(talk.final))
    assert "a man in the middle" in said
    assert "[auth] mechanisms" in said


def test_plus_needs_the_binding() -> None:
    for flag in ("n", "y"):
        mechanism = Scram("SHA-256", binding=BINDING)
        assert "does not bind" in reason(mechanism.step(f"{flag},,n=anna,r=abc".encode()))


def test_downgrade_is_refused() -> None:
    """RFC 5802 6: y means "I could bind, and you do not offer it"."""
    said = reason(Scram("SHA-256", plus_offered=True).step(b"y,,n=anna,r=abc"))
    assert "did not see that it was offered" in said
    assert "[auth] mechanisms" in said
    keys_asked(Scram("SHA-256", plus_offered=False).step(b"y,,n=anna,r=abc"))
    keys_asked(Scram("SHA-256", plus_offered=True).step(b"n,,n=anna,r=abc"))


def test_replayed_last_message() -> None:
    old = Talk()
    old.begin()
    again = Talk()
    again.server.step(old.first)
    again_asked = keys_asked(Scram("SHA-256").step(old.first))
    assert again_asked.take(old.keys).data.split(b",")[0] != b"r=" + old.first.split(b"r=")[1]
    mechanism = Scram("SHA-256")
    keys_asked(mechanism.step(old.first)).take(old.keys)
    assert "old one" in reason(mechanism.step(old.final))


def test_nonces_are_new() -> None:
    nonces = set()
    for _ in range(100):
        asked = keys_asked(Scram("SHA-256").step(b"n,,n=anna,r=abc"))
        nonces.add(asked.take(ScramKeys(1, b"s", b"", b"")).data.split(b",")[0])
    assert len(nonces) == 100
    assert all(re.fullmatch(rb"r=abc[!-+\--~]{20,}", nonce) for nonce in nonces)


def test_steps_cannot_be_swapped() -> None:
    assert isinstance(Scram("SHA-256").step(b"c=biws,r=abc,p=AAAA"), Failed)
    mechanism = Scram("SHA-256")
    keys_asked(mechanism.step(b"n,,n=anna,r=abc"))
    # The keys have not been given: nothing may be proved yet.
    assert isinstance(mechanism.step(b"c=biws,r=abc,p=AAAA"), Failed)


@given(st.lists(st.binary(max_size=40) | st.text("nrcpa=,y\0é", max_size=30).map(str.encode), max_size=4))
@settings(max_examples=300)
def test_any_bytes_are_answered(messages: list[bytes]) -> None:
    mechanism = Scram("SHA-256")
    over = False
    for message in messages:
        step = mechanism.step(message)
        assert isinstance(step, Failed if over else Challenge | NeedKeys | Failed | Done)
        over = over or isinstance(step, Failed | Done)
        if isinstance(step, NeedKeys):
            step.take(ScramKeys(1, b"s", bytes(32), bytes(32)))


def test_keys_never_print() -> None:
    keys = make_keys("SHA-256", b"secret", 1)
    assert "key" not in repr(keys)
