"""The sentences about a refused login."""

import pytest

from mailserver.explain.record import Record
from mailserver.explain.story import Facts, moment, story
from mailserver.explain.trace import Call, Rule

ANNA = "anna@example.test"


def record(rule: str, **changes: object) -> Record:
    whole = {
        "ref": "7KQF-2M9X",
        "typed": "anna",
        "user": ANNA,
        "names": ("anna", ANNA),
        "protocol": "imap",
        "peer": "192.0.2.1",
        "session": "s1.1",
        "server_name": "mail.example.test",
        "host": "mail.example.test",
        "tls": "TLSv1.3",
        "method": "PLAIN",
        "rule": rule,
        "reason": "because",
    }
    return Record(1_800_000_000.0, **{**whole, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", Rule)
def test_each_rule_has_its_sentences_and_the_advice_is_last(rule: Rule) -> None:
    lines = story(record(rule.value))
    assert lines[0] == "2027-01-15 08:00:00 UTC: a login over imap was refused (ref 7KQF-2M9X), session s1.1."
    assert lines[-1].startswith("What to do: ")
    assert any("because" in line for line in lines)
    assert not any("USER" in line for line in lines)


def test_the_whole_story() -> None:
    calls = (Call("file", "find", 0.0001, "no"), Call("ldap", "find", 4.9, "unavailable"))
    lines = story(record("unavailable", waited=12.34, calls=calls, delay=5.0))
    assert lines[1] == (
        "The client at 192.0.2.1 was connected with TLSv1.3, asked for the host mail.example.test, and was served as"
        " mail.example.test. It used PLAIN."
    )
    assert "It sent the name anna." in lines
    assert f"A name without a domain was looked for as it is, and as {ANNA}." in lines
    assert "Back ends asked: file (find: no, 0.000 s), ldap (find: unavailable, 4.900 s)." in lines
    assert any("waited 12.3 s" in line for line in lines)
    assert any("held back for 5.0 s" in line for line in lines)


def test_facts_of_today() -> None:
    wrong = story(record("wrong password"), Facts(password_changed="2026-11-30 10:00 UTC"))[-1]
    assert "last changed on 2026-11-30 10:00 UTC" in wrong
    unknown = record("unknown user", typed="ana@example.test", user="")
    assert ANNA in story(unknown, Facts(near=(ANNA,)))[-1]
    assert "mailserver user add ana@example.test" in story(unknown)[-1]


def test_a_name_that_was_not_kept() -> None:
    lines = story(record("unknown user", typed="(7 characters)", user="", names=("@example.test",)))
    assert any("name of 7 characters" in line and "may be a password" in line for line in lines)


def test_records_of_other_releases_and_of_other_programs() -> None:
    assert "another reason" in " ".join(story(record("a rule of the next release")))
    assert moment(float("nan")) == moment(1e300) == "at an unknown time"
    assert story(Record(0.0))[0].startswith("1970-01-01")


def test_a_refused_protocol_has_a_way_for_either_kind_of_password() -> None:
    said = story(record("protocol"))[-1]
    assert f"mailserver user app-password add {ANNA}" in said
    assert f"mailserver user limit {ANNA} --help" in said
