"""Stored passwords. The fixed entries were made by `doveadm pw` (Dovecot 2.3), or come from the source beside them."""

import base64
import hashlib
import hmac
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.auth.schemes import libcrypt, schemes
from mailserver.auth.schemes.schemes import BadHash, UnknownScheme, dummy_like, make, parse, verify
from mailserver.sasl.scram_keys import derive
from tests.sweeps import choose

PASSWORD = "pä ss:{w}".encode()

BY_DOVEADM = [
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyonCo/CI4g",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$TrvmqMIMlcS4eZem56y0Qg$fqyV3yIxexNnhfb/pzfczMzBY32sKM7FTHdU3syAoiA",
    "{BLF-CRYPT}$2y$05$auZAyV65cWrJSYA4vfkcc.wT9bUgw2TZdfXf72HADqFgCoamJ5.gS",
    (
        "{SHA512-CRYPT}$6$Gvt6UOFDIHmffbF9"
        "$H9QM1LfDK3zUllL5ll/Afd3SbY6R708OlYM5UUS9jOFFGn.XvcamRyWC49zOvlBwRYj3HjEby1Vf/zMNn9lBu."
    ),
    "{SHA256-CRYPT}$5$X6l4CvsXcWtBJ.Yb$DjOBiVPX2R2veWOji6JE9hOVaS3UuEaodiLZQ/zMNGC",
    "{SSHA}nlmnw7LTQm7SoKi39wdd6gCYWscXAO0K",
    "{SSHA256}9GnT0tPqOVvGZ2sba7nGx7H+yWQHjJERvsjqrp524NzZPJ2s",
    "{SSHA512}E0z4lGf3/OkoqGAm/t4mLCOL5MsyOyNcIYsSxxTqtamnd076AfhL35iiSYEnvllS4tTKxogkMX0qVGLJm8x0ORwXl+U=",
    "{SHA}2TH24Dnb6VB0UZCVN14N+wG6HCc=",
    "{SHA256}a2le8Lw5VkagNC5MAWdSfvqwLi7B34ZlmBH2qM84tcs=",
    "{SHA512}/oaQMPmvMJ+uMIdglJ+WXglWLLNZhDlNDJbNZzaZWwF25+3EqlVmYmw6GCONsHPvoRm9l+oPa2TwffU78jDvQw==",
    "{PBKDF2}$1$A1dKsCOJXwZxIIlw$5000$5347221fabc30505db938f9dc82534c6201d7227",
    (
        "{SCRAM-SHA-256}4096,gsiwnMBOm7FHHK/7KwbT9A==,"
        "zUy7UwqpRCgBYU1zbvv5DBgFVqJ5wG+ApIKL3irb/lc=,pMZ0Nby9ClTlG1JE9nELuRGBqe2wNezFLjMnoIwmQwg="
    ),
    "{SCRAM-SHA-1}4096,HEYug7W0CNpBKFh43P9vVQ==,ZcUUM3nNjUeoG/8h2ACRyWwBa6Q=,29JByWeqsv3TXmOCYuexhwf5XrE=",
    "{PLAIN}pä ss:{w}",
    "{MD5-CRYPT}$1$vCvEfLlZ$XfiFTQKm8eGARHroulNF0.",
]

ELSEWHERE = [
    # doveadm pw with an encoding.
    ("{SHA256.HEX}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", b"secret"),
    ("{SSHA.HEX}77ced07954d9bc920bede6c81d8d4e95cc3d496d6839b22a", b"secret"),
    ("{PLAIN.B64}c2VjcmV0", b"secret"),
    # Dovecot takes hexadecimal of the right length without being told.
    ("{SHA256}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", b"secret"),
    # Names are compared without case; aliases; no scheme is crypt(3).
    ("{sha1}5en6G6MezRroT3XKqkdPOmY/BfQ=", b"secret"),
    ("{CLEARTEXT}secret", b"secret"),
    ("{CRYPT}$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", b"Hello world!"),
    ("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", b"Hello world!"),
]


@pytest.mark.parametrize("stored", BY_DOVEADM)
def test_entries_of_dovecot(stored: str) -> None:
    assert verify(stored, PASSWORD)
    for wrong in (PASSWORD[:-1], PASSWORD + b"x", PASSWORD.upper(), b"", PASSWORD + b"\0"):
        assert not verify(stored, wrong)


def test_every_scheme_has_an_entry_here() -> None:
    assert {parse(stored).scheme.name for stored in BY_DOVEADM} == set(schemes.SCHEMES)


@pytest.mark.parametrize(("stored", "password"), ELSEWHERE)
def test_other_spellings(stored: str, password: bytes) -> None:
    assert verify(stored, password)
    assert not verify(stored, password + b"!")


def test_scram_entry_holds_the_keys_of_the_rfc() -> None:
    # RFC 7677 3: the example exchange, user "pencil", salt and iterations of the server's first message. The server
    # signature of its last message follows from ServerKey and the messages.
    salt, rounds = "W22ZaJ0SNY7soEsUEjb6gQ==", 4096
    keys = derive("SHA-256", b"pencil", base64.b64decode(salt), rounds)
    stored_key, server_key = keys.stored_key, keys.server_key
    messages = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(server_key, messages, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    client_key = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored_key, messages, "sha256"), strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key


@pytest.mark.skipif(shutil.which("doveadm") is None, reason="needs Dovecot's doveadm")
@pytest.mark.parametrize("scheme", sorted(schemes.SCHEMES))
def test_doveadm_and_we_take_each_other_entries(scheme: str) -> None:
    made = subprocess.run(
        ["doveadm", "pw", "-s", scheme, "-p", "gehe1m"], capture_output=True, text=True, check=True, timeout=60
    )
    assert verify(made.stdout.strip(), b"gehe1m")
    assert not verify(made.stdout.strip(), b"gehe1n")
    if schemes.SCHEMES[scheme].make is None:
        return
    for password, right in (("gehe1m", 0), ("gehe1n", 1)):
        judged = subprocess.run(
            ["doveadm", "pw", "-t", make(b"gehe1m", scheme, schemes.LIGHT), "-p", password],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert (judged.returncode != 0) == right


@pytest.mark.parametrize("scheme", [name for name, row in schemes.SCHEMES.items() if row.make is not None])
def test_made_entries_are_salted_and_verify(scheme: str) -> None:
    first, second = (make("grüß".encode(), scheme, schemes.LIGHT) for _ in range(2))
    assert first != second
    assert first.startswith(f"{{{scheme}}}")
    assert verify(first, "grüß".encode())
    assert not verify(first, b"gruss")


@pytest.mark.parametrize("scheme", ["SHA512-CRYPT", "SHA256-CRYPT"])
def test_sha_crypt_without_libcrypt_gives_the_same(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = make(b"secret", scheme)
    monkeypatch.setattr(libcrypt, "_library", lambda: None)
    assert verify(stored, b"secret")
    assert not verify(stored, b"secreT")
    own = make(b"secret", scheme)
    monkeypatch.undo()
    assert verify(own, b"secret")


def test_a_password_longer_than_libcrypt_takes() -> None:
    # libxcrypt refuses more than 511 octets; crypt(3) itself has no bound.
    long = b"x" * 600
    assert verify(schemes.SCHEMES["SHA512-CRYPT"].make and make(long, "SHA512-CRYPT"), long)


def test_bcrypt_counts_72_octets_as_dovecot_does_and_makes_no_such_entry() -> None:
    stored = make(b"a" * 72, "BLF-CRYPT")
    assert verify(stored, b"a" * 80)
    assert not verify(stored, b"a" * 71)
    with pytest.raises(BadHash):
        make(b"a" * 73, "BLF-CRYPT")


@pytest.mark.parametrize(
    ("stored", "word"),
    [
        ("{DES-CRYPT}Hk2sRuDZ5Yl4E", "DES-CRYPT"),
        ("Hk2sRuDZ5Yl4E", "crypt"),
        ("{YESCRYPT}$y$j9T$x$y", "YESCRYPT"),
        ("{ARGON2D}x", "ARGON2D"),
        ("{}x", "''"),
        ("hunter2", "crypt"),
        ("", "crypt"),
    ],
)
def test_unknown_schemes_are_named(stored: str, word: str) -> None:
    with pytest.raises(UnknownScheme, match=word):
        parse(stored)


@pytest.mark.parametrize(
    "stored",
    [
        "{ARGON2ID",
        "{ARGON2ID}",
        "{ARGON2ID}$argon2i$v=19$m=32768,t=4,p=1$TrvmqMIMlcS4eZem56y0Qg$fqyV3yIxexNnhfb/pzfczMzBY32sKM7FTHdU3sy",
        "{ARGON2ID}$argon2id$v=19$m=4194304,t=3,p=1$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyo",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=1000,p=1$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyo",
        "{ARGON2ID}$argon2id$v=19$m=0,t=1,p=1$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyo",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=1,p=200$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyo",
        "{BLF-CRYPT}$2y$31$auZAyV65cWrJSYA4vfkcc.wT9bUgw2TZdfXf72HADqFgCoamJ5.gS",
        "{BLF-CRYPT}$2y$05$short",
        "{SHA512-CRYPT}$6$rounds=999999999$Gvt6UOFDIHmffbF9$" + "a" * 86,
        "{SHA512-CRYPT}$6$rounds=10$Gvt6UOFDIHmffbF9$" + "a" * 86,
        "{SHA512-CRYPT}$5$X6l4CvsXcWtBJ.Yb$DjOBiVPX2R2veWOji6JE9hOVaS3UuEaodiLZQ/zMNGC",
        "{PBKDF2}$1$salt$999999999$5347221fabc30505db938f9dc82534c6201d7227",
        "{PBKDF2}$1$salt$-5$5347221fabc30505db938f9dc82534c6201d7227",
        "{PBKDF2}$1$salt$5000$53",
        "{SCRAM-SHA-256}999999999,gsiwnMBOm7FHHK/7KwbT9A==,zUy7,pMZ0",
        "{SCRAM-SHA-256}4096,gsiwnMBOm7FHHK/7KwbT9A==,zUy7,pMZ0",
        "{SCRAM-SHA-256}4096,!!,zUy7UwqpRCgBYU1zbvv5DBgFVqJ5wG+ApIKL3irb/lc=,zUy7UwqpRCgBYU1zbvv5DBgFVqJ5wG+ApIKL3irb/lc=",
        "{SSHA}AAAA",
        "{SSHA}not base64!",
        "{SHA}" + "A" * 44,
        "{PLAIN.ROT13}frperg",
        "{MD5-CRYPT}$1$x$y",
        "{PLAIN}\ud800",
        # yescrypt: 1 GiB of memory; 32 passes in parallel; repeated; an upgraded hash; parameters that end too soon.
        "$y$jFT$k2XAnEHBqQ1Ct2aMXFKNa/$3xgh7ge1.1WiVmIwzLQV4LEMkqAvYT/SsxNIgBrCXG/",
        "$y$j9T.S$k2XAnEHBqQ1Ct2aMXFKNa/$3xgh7ge1.1WiVmIwzLQV4LEMkqAvYT/SsxNIgBrCXG/",
        "$y$j9T/S$k2XAnEHBqQ1Ct2aMXFKNa/$3xgh7ge1.1WiVmIwzLQV4LEMkqAvYT/SsxNIgBrCXG/",
        "$y$j9T1.$k2XAnEHBqQ1Ct2aMXFKNa/$3xgh7ge1.1WiVmIwzLQV4LEMkqAvYT/SsxNIgBrCXG/",
        "$y$j9z$k2XAnEHBqQ1Ct2aMXFKNa/$3xgh7ge1.1WiVmIwzLQV4LEMkqAvYT/SsxNIgBrCXG/",
        "$gy$jFT$k2XAnEHBqQ1Ct2aMXFKNa/$3xgh7ge1.1WiVmIwzLQV4LEMkqAvYT/SsxNIgBrCXG/",
        "$7$GU..../....k2XAnEHBqQ1Ct2aMXFKNa/$2Qpv953ujcajgyUirvfStOQZ5OJ5dfhWRTeu67NI6Z1",
        "$7$zzzzzzzzzzzk2XAnEHBqQ1Ct2aMXFKNa/$2Qpv953ujcajgyUirvfStOQZ5OJ5dfhWRTeu67NI6Z1",
        "$7$B..........k2XAnEHBqQ1Ct2aMXFKNa/$2Qpv953ujcajgyUirvfStOQZ5OJ5dfhWRTeu67NI6Z1",
    ],
)
def test_what_is_damaged_or_costs_too_much_is_refused_without_work(stored: str) -> None:
    with pytest.raises(BadHash) as caught:
        parse(stored)
    body = stored.partition("}")[2]
    assert not body or body not in str(caught.value), "a message must not repeat a hash"


BY_LIBCRYPT = [
    # crypt(3) of "Hello world!"; the second field of the settings is of the least cost, or of the usual one.
    "{CRYPT}$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/$U714.Qb8scG3K4QGg/xKCyJYcAYtgz2YQfZyHILKld1",
    "$y$j9T$k2XAnEHBqQ1Ct2aMXFKNa/$39o5wp7xduX2w8qG2IzHqokdj9pOGk73sLyLgG3S/nA",
    "{CRYPT}$gy$j75$k2XAnEHBqQ1Ct2aMXFKNa/$dr/FWzOGaTe8mDiPccu7ICjR1surx5QgF3TwpL4eZC/",
    "{CRYPT}$7$46..../....saltsalt$G6VFH1VMCtxHKLFnotBmXiEXmxK81C5VDMqaj4BnY8D",
    "{CRYPT}$1$salt$wa8aFuC3rkp5bjoBIGTc41",
    "{MD5}$1$salt$wa8aFuC3rkp5bjoBIGTc41",
]


@pytest.mark.parametrize("stored", BY_LIBCRYPT)
def test_forms_that_libcrypt_knows(stored: str) -> None:
    assert verify(stored, b"Hello world!")
    assert not verify(stored, b"Hello world")
    assert not verify(stored, b"x" * 600), "longer than libcrypt takes"
    dummy = dummy_like(stored)
    assert parse(dummy).kind == parse(stored).kind
    assert not verify(dummy, b"Hello world!")


@pytest.mark.skipif(shutil.which("doveadm") is None, reason="needs Dovecot's doveadm")
@pytest.mark.parametrize("stored", BY_LIBCRYPT)
def test_dovecot_verifies_the_same_forms(stored: str) -> None:
    named = stored if stored.startswith("{") else f"{{CRYPT}}{stored}"
    subprocess.run(["doveadm", "pw", "-t", named, "-p", "Hello world!"], capture_output=True, check=True, timeout=60)


def test_yescrypt_tells_its_cost() -> None:
    assert [parse(stored).kind for stored in BY_LIBCRYPT[:4]] == [
        "YESCRYPT j75",
        "YESCRYPT j9T",
        "GOST-YESCRYPT j75",
        "SCRYPT 46..../....",
    ]
    assert parse(BY_LIBCRYPT[1]).memory_kib == 16 * 1024
    assert parse(BY_LIBCRYPT[4]).scheme.is_weak


@pytest.mark.parametrize("stored", BY_LIBCRYPT)
def test_without_libcrypt_they_are_refused_with_the_cure(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcrypt, "_library", lambda: None)
    libcrypt.knows.cache_clear()
    try:
        with pytest.raises(BadHash, match="install libxcrypt"):
            parse(stored)
    finally:
        libcrypt.knows.cache_clear()


def test_calls_of_libcrypt_in_several_threads_do_not_mix() -> None:
    entries = [make(b"secret%d" % number, "SHA512-CRYPT") for number in range(2)]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(3):
            right = threads.map(lambda number: verify(entries[number], b"secret%d" % number), range(2))
            assert all(right)


@pytest.mark.parametrize("stored", [*BY_DOVEADM, *BY_LIBCRYPT])
def test_truncated_anywhere_it_never_raises_anything_else(stored: str) -> None:
    assert parse(stored)
    refused = 0
    for length in range(len(stored)):
        try:
            parse(stored[:length])
        except BadHash:
            refused += 1
    assert refused >= stored.find("}") + 1, "a scheme without its end, at least"


HEADS = ("$y$", "$gy$j9T$", "$7$", "$1$", "$6$", "{CRYPT}$y$", "{PBKDF2}$1$")


@given(st.text(max_size=120), st.sampled_from(["", *HEADS, *[f"{{{name}}}" for name in schemes.SCHEMES]]))
@settings(max_examples=choose(60, whole=300))
def test_any_text_is_an_entry_or_bad(text: str, head: str) -> None:
    try:
        entry = parse(head + text)
    except BadHash:
        return
    assert entry.kind.startswith(entry.scheme.name)
    try:
        dummy_like(head + text)
    except BadHash:
        return
    assert 0 <= entry.memory_kib <= schemes.MAX_MEMORY_KIB


@pytest.mark.parametrize("stored", [each for each in BY_DOVEADM if not each.startswith("{PLAIN}")])
def test_a_dummy_costs_the_same_and_fits_nothing(stored: str) -> None:
    dummy = dummy_like(stored)
    assert dummy != stored
    assert parse(dummy).kind == parse(stored).kind
    assert not verify(dummy, PASSWORD)


def test_kinds_tell_costs_apart() -> None:
    kinds = [parse(stored).kind for stored in BY_DOVEADM]
    assert kinds[0] == "ARGON2ID m=65536,t=3,p=1"
    assert kinds[2] == "BLF-CRYPT 05"
    assert parse("{SHA512-CRYPT}$6$rounds=9000$abc$" + "a" * 86).kind == "SHA512-CRYPT rounds=9000"
    assert parse(BY_DOVEADM[11]).kind == "PBKDF2 5000"


@pytest.mark.parametrize("password", [b"", b"a\0b", b"x" * 3000])
def test_passwords_that_cannot_be(password: bytes) -> None:
    with pytest.raises(BadHash):
        make(password)


@pytest.mark.parametrize("scheme", ["PLAIN", "SHA256", "ROT13"])
def test_no_new_entries_of_weak_schemes(scheme: str) -> None:
    with pytest.raises(UnknownScheme):
        make(b"secret", scheme)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SHA512CRYPT", "SHA512-CRYPT"),
        ("SHA-512", "SHA512"),
        ("BLF_CRYPT", "BLF-CRYPT"),
        ("BCRYPT", "BLF-CRYPT"),
        ("ARGON2-ID", "ARGON2ID"),
        ("PBKDF2-SHA512", ""),
        ("PLAIN-MD5", ""),
        ("PLAIN-MD4", ""),
        ("SMD5", ""),
        ("CRAM-MD5", ""),
        ("SSHA384", ""),
        ("CRYPT", ""),
    ],
)
def test_the_scheme_that_was_meant(name, near):
    """PLAIN in the place of PLAIN-MD5 would make the hash itself the password."""
    with pytest.raises(UnknownScheme):
        parse(f"{{{name}}}x")
    assert schemes.nearest_name(name) == near


@pytest.mark.interop
def test_no_scheme_of_dovecots_is_taken_for_another():
    if shutil.which("doveadm") is None:
        pytest.skip("needs Debian's dovecot-core")
    listed = subprocess.run(["doveadm", "pw", "-l"], capture_output=True, text=True, check=True).stdout.split()
    assert len(listed) > 20
    for name in {*listed} - {"CRYPT"}:
        try:
            parse(f"{{{name}}}x")
        except BadHash as error:
            said = str(error)
        else:
            continue
        assert "unknown password scheme" not in said
        assert "not supported here" not in said or schemes.nearest_name(name) == ""


def test_argon2_without_its_kind_is_what_the_hash_says():
    for stored in BY_DOVEADM[:2]:
        name, _, body = stored.partition("}")
        assert parse(f"{{ARGON2}}{body}").scheme.name == name.removeprefix("{")
