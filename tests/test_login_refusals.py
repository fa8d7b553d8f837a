"""The id at the end of each refusal of a login, its line in the log, and what that may not show."""

import base64
from pathlib import Path

import pytest

from mailserver.auth.interfaces import Abilities
from mailserver.errors import AuthorizationFailed, AuthUnavailable, LimitReached, MailError, TooManyLogins
from tests.refs import refs_in, without_refs
from tests.test_sasl_exchange import PROTOCOLS, Site


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.name)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(request.param, tmp_path)


def refusal(site: Site, initial: bytes, mechanism: bytes = b"PLAIN") -> bytes:
    """The whole answer to an exchange with an initial response."""
    site.client.send(site.protocol.begin + mechanism + b" " + base64.b64encode(initial) + b"\r\n")
    return site.client.take_unmasked()


def test_a_refusal_ends_in_the_id_that_the_log_has(site: Site) -> None:
    unknown, wrong = refusal(site, b"\0nobody@example.test\0x"), refusal(site, b"\0anna@example.test\0x")
    assert without_refs(unknown) == without_refs(wrong) == site.protocol.failed
    assert len(unknown) == len(wrong)
    refs = refs_in(unknown) + refs_in(wrong)
    assert len(set(refs)) == 2
    assert wrong.endswith(f" (ref {refs[1]})\r\n".encode())
    assert [each["ref"] for each in site.logged("login-failed")] == refs
    assert [each[0] for each in site.authenticator.refusals] == refs


@pytest.mark.parametrize("error", [AuthUnavailable, TooManyLogins, AuthorizationFailed])
def test_each_kind_of_refusal_has_one(site: Site, error: type[MailError]) -> None:
    site.authenticator.error = error()
    answer = refusal(site, b"\0anna@example.test\0secret")
    assert refs_in(answer) == [site.logged("login-failed")[0]["ref"]]
    assert error.text.encode() in answer


def test_so_does_one_after_the_password_was_right(site: Site) -> None:
    site.client.channel.login_error = LimitReached("too many sessions")
    answer = refusal(site, b"\0anna@example.test\0secret")
    assert b"too many sessions (ref " in answer
    assert refs_in(answer) == [site.logged("login-failed")[0]["ref"]]


def test_so_does_a_broken_exchange(site: Site) -> None:
    site.authenticator.can = Abilities(frozenset({"SHA-256"}), certificates=False)
    answer = refusal(site, b"y,,n=anna@example.test", b"SCRAM-SHA-256")
    assert refs_in(answer) == [site.logged("login-failed")[0]["ref"]]


@pytest.mark.parametrize("typed", ["hunter2", "p@ssw0rd", "päss wort", "x" * 200])
def test_a_name_that_may_be_a_password_is_not_logged(site: Site, typed: str) -> None:
    refusal(site, b"\0" + typed.encode() + b"\0x")
    (line,) = site.logged("login-failed")
    assert line["user"] == f"({len(typed)} characters)"
    assert typed not in str(line)


def test_words_that_are_no_login_have_none(site: Site) -> None:
    site.client.send(site.protocol.begin + b"PLAIN !\r\n" + site.protocol.begin + b"NOTHING\r\n")
    assert refs_in(site.client.take_unmasked()) == []
    assert site.authenticator.refusals == []


def test_imap_login_with_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    site = Site(PROTOCOLS[0], tmp_path)
    site.client.send(b'a LOGIN "ann\xff" x\r\n')
    answer = site.client.take_unmasked()
    assert without_refs(answer) == site.protocol.failed
    assert refs_in(answer) == [site.logged("login-failed")[0]["ref"]]
