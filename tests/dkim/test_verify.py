"""Verification: the examples of the standards, dkimpy's signatures, and what strangers may send."""

from __future__ import annotations

import base64

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers, generate_private_key

from mailserver.dkim.canonical import HeaderField, split_header
from mailserver.dkim.keys import BadKey, parse_record, public_record
from mailserver.dkim.verify import MOST_NAMES, MOST_SIGNATURES, Result, parse_signature, signatures, verify
from tests.dkim.samples import DOMAIN, NOW, RFC6376, RFC8463, find, keys, signed

MESSAGE = b"From: anna@example.test\r\nTo: b@example.org\r\nSubject:  a  b\r\n\r\nHello \r\n\r\n"


def results(message: bytes, **records: str) -> list[tuple[str, str]]:
    def find_here(name: str) -> list[str]:
        selector = name.partition(".")[0].replace("-", "_")
        return [records[selector]] if selector in records else find(name)

    return [(result.verdict, result.reason) for result in verify(message, find_here, NOW)]


def test_the_examples_of_the_standards() -> None:
    assert results(RFC8463) == [("pass", ""), ("pass", "")]
    assert results(RFC6376) == [("pass", "")]
    assert results(RFC6376.replace(b"      by", b"     by")) == [
        ("fail", "the header was changed, or the key is another")
    ]
    assert results(RFC8463.replace(b"hungry", b"angry")) == [("fail", "the body was changed")] * 2
    assert [verdict for verdict, _reason in results(RFC8463.replace(b"dinner", b"lunch"))] == ["fail", "fail"]


@pytest.mark.parametrize(
    "canonical", [(one, other) for one in (b"simple", b"relaxed") for other in (b"simple", b"relaxed")]
)
@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_dkimpys_signatures(canonical: tuple[bytes, bytes], kind: str) -> None:
    key = next(each for each in keys() if each.algorithm == kind)
    loaded = serialization.load_pem_private_key(key.pem, None)
    if kind == "rsa":
        private = loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    else:
        private = base64.b64encode(
            loaded.private_bytes(
                serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
            )
        )
    made = dkim.sign(
        MESSAGE,
        key.selector.encode(),
        DOMAIN.encode(),
        private,
        canonicalize=canonical,
        signature_algorithm=f"{kind}-sha256".encode(),
    )
    assert results(made + MESSAGE) == [("pass", "")]
    assert results(made + MESSAGE.replace(b"Hello", b"Hallo")) == [("fail", "the body was changed")]


def test_l_is_seen_and_not_believed() -> None:
    key = keys()[0]
    private = serialization.load_pem_private_key(key.pem, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    made = dkim.sign(MESSAGE, key.selector.encode(), DOMAIN.encode(), private, length=True)
    assert b" l=" in made
    assert results(made + MESSAGE) == [("pass", "")]
    assert results(made + MESSAGE + b"more\r\n") == [("policy", "the signature leaves out the body's end, by l=")]


def test_a_missing_or_other_key() -> None:
    message = signed(MESSAGE)
    rsa, ed25519 = map(public_record, keys())
    assert results(message.replace(b"s=sel-rsa", b"s=other"))[0] == ("permerror", "there is no key")
    assert (
        results(message, sel_rsa=ed25519, sel_ed25519=rsa)
        == [("permerror", "the key is of another type than the signature")] * 2
    )
    assert results(message, sel_rsa="v=DKIM1; p=")[0] == ("permerror", "the key is revoked: its p= is empty")
    [two, _other] = verify(message, lambda name: find(name) * 2, NOW)
    assert two.reason == "there is more than one key"


def _rsa_record(bits: int, exponent: int = 65537) -> str:
    """A record of a key of that size, which has no private half where the exponent is unusual."""
    numbers = generate_private_key(65537, 1024).public_key().public_numbers()
    modulus = numbers.n if bits == 1024 else (1 << (bits - 1)) + 2 * numbers.n + 1
    octets = (
        RSAPublicNumbers(exponent, modulus)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return f"v=DKIM1; k=rsa; p={base64.b64encode(octets).decode()}"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param("", "has no p=", id="empty"),
        pytest.param("nonsense", "is no list of tags", id="nonsense"),
        pytest.param("v=DKIM1; p=a; p=b", "has the tag p twice", id="twice"),
        pytest.param("v=DKIM2; p=YQ==", "begin with v=DKIM1", id="version"),
        pytest.param("k=rsa; v=DKIM1; p=YQ==", "begin with v=DKIM1", id="version-late"),
        pytest.param("v=DKIM1; h=sha1; p=YQ==", "does not allow SHA-256", id="sha1"),
        pytest.param("v=DKIM1; s=xmpp; p=YQ==", "is not for mail", id="service"),
        pytest.param("v=DKIM1; k=dsa; p=YQ==", "unknown type", id="type"),
        pytest.param("v=DKIM1; p=!!", "no base64", id="base64"),
        pytest.param("v=DKIM1; p=YQ==", "no RSA key", id="no-key"),
        pytest.param("v=DKIM1; k=ed25519; p=YQ==", "no Ed25519 key of 32 octets", id="short-ed25519"),
        pytest.param("v=DKIM1; p=" + "A" * 8000, "is too long", id="long"),
    ],
)
def test_a_bad_record(record: str, reason: str) -> None:
    with pytest.raises(BadKey, match=reason):
        parse_record(record)


@pytest.mark.parametrize(
    ("bits", "exponent", "reason"),
    [
        pytest.param(8192, 65537, "8192 bits", id="large"),
        pytest.param(1024, (1 << 1000) + 1, "very large exponent", id="exponent"),
    ],
)
def test_a_costly_key(bits: int, exponent: int, reason: str) -> None:
    with pytest.raises(BadKey, match=reason):
        parse_record(_rsa_record(bits, exponent))


GOOD = b"DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=YQ==; b=YQ==\r\n"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(b"v=1", b"v=2", "version", id="version"),
        pytest.param(b"v=1; ", b"", "no v=", id="no-version"),
        pytest.param(b"rsa-sha256", b"rsa-sha1", "neither rsa-sha256", id="sha1"),
        pytest.param(b"h=from", b"h=to", "does not name From", id="no-from"),
        pytest.param(b"h=from", b"h=from" + b":x" * MOST_NAMES, "names too much", id="many-names"),
        pytest.param(b"s=s", b"s=../s", "no name", id="selector"),
        pytest.param(b"d=a.example", b"d=", "no name", id="no-domain"),
        pytest.param(b"d=a.example", b"d=" + b"a." * 200 + b"example", "no name", id="long-domain"),
        pytest.param(b"s=s", b"s=s; i=x@b.example", "not within", id="identity"),
        pytest.param(b"s=s", b"s=s; c=nofws", "canonical form", id="form"),
        pytest.param(b"s=s", b"s=s; q=http", "not in DNS", id="query"),
        pytest.param(b"s=s", b"s=s; x=1", "expired", id="expired"),
        pytest.param(b"s=s", b"s=s; t=later", "t= is no number", id="time"),
        pytest.param(b"s=s", b"s=s; l=-1", "l= is no number", id="length"),
        pytest.param(b"bh=YQ==", b"bh=!", "bh= is no base64", id="hash"),
        pytest.param(b"s=s", b"s=s; s=t", "no list of tags", id="twice"),
        pytest.param(b"s=s", b"s=\xff", "no list of tags", id="8-bit"),
        pytest.param(b"s=s", b"s=s;" + b" " * 40_000, "too long", id="spaces"),
    ],
)
def test_a_bad_signature(old: bytes, new: bytes, reason: str) -> None:
    assert old in GOOD
    [found] = signatures(split_header(GOOD.replace(old, new)), NOW)
    assert isinstance(found, Result)
    assert found.verdict == "permerror"
    assert reason in found.reason


def test_few_of_many_signatures_are_verified() -> None:
    asked: list[str] = []

    def find_none(name: str) -> list[str]:
        asked.append(name)
        return []

    assert len(verify(GOOD * 1000 + b"From: a@a.example\r\n\r\n", find_none, NOW)) == MOST_SIGNATURES
    assert asked == ["s._domainkey.a.example."] * MOST_SIGNATURES


def test_another_tag_may_look_like_the_signature() -> None:
    raw = GOOD.replace(b"s=s", b"s=s; z=Subject:b=20c")
    parsed = parse_signature(HeaderField(b"dkim-signature", raw), NOW)
    assert parsed.signature == b"a"
    message = signed(MESSAGE)
    assert [verdict for verdict, _ in results(message.replace(b"; t=", b"; z=Subject:b=20c; t="))] == ["fail", "fail"]
