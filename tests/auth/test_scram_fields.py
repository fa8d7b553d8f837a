"""SCRAM keys in a users file: beside the password, in it, stale, and what the file says of them."""

from pathlib import Path

import pytest

from mailserver.auth.backends.file import FileBackend, check
from mailserver.auth.interfaces import IScramKeys, ITrustsCertificates, TypicalScram, User
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import parse_line
from mailserver.auth.schemes.salt_secret import salt_secret
from mailserver.auth.schemes.scram_fields import StaleKeys, keys_of, make_fields, replace_fields, survey
from mailserver.sasl.saslprep import Unpreparable
from mailserver.sasl.scram_keys import BadKeys, ScramKeys, derive
from tests.auth.test_file import ARGON2, SSHA, DirectHasher

# doveadm pw -s SCRAM-SHA-256 (Dovecot 2.3)
DOVECOT = (
    "{SCRAM-SHA-256}4096,gsiwnMBOm7FHHK/7KwbT9A==,"
    "zUy7UwqpRCgBYU1zbvv5DBgFVqJ5wG+ApIKL3irb/lc=,pMZ0Nby9ClTlG1JE9nELuRGBqe2wNezFLjMnoIwmQwg="
)


def line(name: str, stored: str, *hashes: str, password: bytes = b"secret", extra: str = "") -> str:
    bare = stored.removeprefix("!")
    fields = make_fields(bare, password, hashes, rounds=4096)
    return f"{name}:{stored}::::::{replace_fields(extra, fields)}"


def keys(text: str, hash_name: str = "SHA-256") -> ScramKeys | None:
    return keys_of(parse_line(text), hash_name)


def test_keys_stand_beside_the_password() -> None:
    text = line("anna", ARGON2, "SHA-256", "SHA-1", extra="userdb_quota=1G")
    assert text.startswith(f"anna:{ARGON2}::::::userdb_quota=1G scram_sha256=")
    for hash_name in ("SHA-256", "SHA-1"):
        found = keys(text, hash_name)
        assert found is not None
        assert derive(hash_name, b"secret", found.salt, found.rounds) == found
    assert keys(line("anna", ARGON2, "SHA-256"), "SHA-1") is None
    assert keys(line("anna", "!" + ARGON2, "SHA-256")) is not None, "disabling keeps them"


def test_a_password_that_another_program_changed_leaves_no_keys() -> None:
    text = line("anna", ARGON2, "SHA-256").replace(ARGON2, SSHA)
    with pytest.raises(StaleKeys, match="mailserver user password"):
        keys(text)


def test_entries_of_dovecots_scheme_are_the_keys() -> None:
    found = keys(f"anna:{DOVECOT}")
    assert found is not None
    assert derive("SHA-256", "pä ss:{w}".encode(), found.salt, found.rounds) == found
    assert make_fields(DOVECOT, b"x", ["SHA-256"]) == {}, "it has them already"
    assert list(make_fields(DOVECOT, b"x", ["SHA-256", "SHA-1"], rounds=1)) == ["scram_sha1"]


def test_broken_fields() -> None:
    for value in ("", "x", "mark,4096,a", "mark,1,c2FsdA==,AAAA,AAAA"):
        with pytest.raises(BadKeys):
            keys(f"anna:{SSHA}::::::scram_sha256={value}")


def test_a_password_that_cannot_be_prepared_gets_none() -> None:
    with pytest.raises(Unpreparable):
        make_fields(ARGON2, "\U0001f600".encode(), ["SHA-256"])


def test_plain_and_scram_take_the_same_password() -> None:
    """One that SASLprep changes: by PLAIN it comes as it was typed, or prepared; neither locks anybody out."""
    typed, prepared = "\u2168\u00a0x".encode(), b"IX x"
    stored = schemes.make(typed, "SCRAM-SHA-256")
    assert schemes.verify(stored, typed)
    assert schemes.verify(stored, prepared)
    assert not schemes.verify(stored, b"IX  x")
    # Dovecot makes keys of the octets as they are.
    raw = "{SCRAM-SHA-256}" + derive("SHA-256", typed, b"salt", 4096).text()
    assert schemes.verify(raw, typed)


def test_survey() -> None:
    anna = line("anna", ARGON2, "SHA-256")
    ben = line("ben", DOVECOT)
    off = [f"carla:!{SSHA}", f"dora:{SSHA}::::::nologin"]
    assert survey([]) == {}
    assert survey([anna, ben, *off]) == {"SHA-256": TypicalScram(4096, 16, everybody=True)}
    assert survey([anna, f"emil:{SSHA}"]) == {"SHA-256": TypicalScram(4096, 16, everybody=False)}
    assert survey([f"emil:{SSHA}"]) == {}
    stale = line("fritz", ARGON2, "SHA-256").replace(ARGON2, SSHA)
    assert survey([anna, stale.replace(":{", ":!{")]) == {"SHA-256": TypicalScram(4096, 16, everybody=True)}
    assert survey([anna, stale]) == {"SHA-256": TypicalScram(4096, 16, everybody=False)}


def test_the_file_back_end(tmp_path: Path) -> None:
    path = tmp_path / "users"
    stale = line("fritz", ARGON2, "SHA-256").replace(ARGON2, SSHA)
    lines = [line("anna", SSHA, "SHA-256"), line("ben", "!" + SSHA, "SHA-256"), f"carla:{SSHA}", stale]
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    backend = FileBackend(path, DirectHasher())
    assert IScramKeys.providedBy(backend)
    assert ITrustsCertificates.providedBy(backend)
    assert backend.scram_keys(User("anna"), "SHA-256") == keys(lines[0])
    assert backend.scram_keys(User("anna"), "SHA-1") is None
    for without in ("ben", "carla", "fritz", "nobody"):
        assert backend.scram_keys(User(without), "SHA-256") is None
    assert [backend.may_log_in(User(name)) for name in ("anna", "ben", "carla", "nobody")] == [True, False, True, False]
    assert backend.typical_scram("SHA-256") == TypicalScram(4096, 16, everybody=False)
    assert backend.typical_scram("SHA-1") is None
    problems = [str(problem) for problem in check(path)]
    assert len(problems) == 1
    assert "user fritz: warning: its SCRAM keys belong to another password" in problems[0]


def test_salts_are_made_of_the_machines_id(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    assert salt_secret(path) is None
    path.write_text("uninitialized\n")
    assert salt_secret(path) is None
    path.write_text("0123456789abcdef0123456789abcdef\n")
    secret = salt_secret(path)
    assert secret is not None
    assert secret == salt_secret(path)
    assert b"0123456789abcdef" not in secret


@pytest.mark.parametrize("name", ["anna", "ben", "carla", "nobody"])
def test_keys_are_parsed_for_whoever_is_asked_for(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the users ben is disabled, and carla has no keys: the time must not show it."""
    path = tmp_path / "users"
    path.write_text("\n".join([line("anna", SSHA, "SHA-256"), line("ben", "!" + SSHA, "SHA-256"), f"carla:{SSHA}"]))
    backend = FileBackend(path, DirectHasher())
    backend.find_user("anna")
    parsed: list[str] = []
    parse = ScramKeys.parse.__func__

    def note(cls: type[ScramKeys], text: str, hash_name: str) -> ScramKeys:
        parsed.append(hash_name)
        return parse(cls, text, hash_name)

    monkeypatch.setattr(ScramKeys, "parse", classmethod(note))
    assert (backend.scram_keys(User(name), "SHA-256") is not None) == (name == "anna")
    assert parsed == ["SHA-256"]
