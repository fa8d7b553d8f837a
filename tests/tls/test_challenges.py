"""Proofs are put and taken away; what hinders that is told, and programs of the administrator's are ended in time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailserver.tls.acme import challenges
from mailserver.tls.acme.challenges import ByUpdate, ChallengeFailed, Nothing, make_proof
from mailserver.tls.acme.network import seconds_of

TOKEN = "DGyRejmCefe7v4NfDGDKfA"  # of RFC 8555 8.3


@pytest.fixture(autouse=True)
def no_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is one."""
    monkeypatch.setattr(challenges, "target", lambda record, _resolver, _port: record)


def job(**more: Any) -> dict[str, Any]:
    return {"challenge": "http-01", "webroot": None, "dns": None, **more}


def hook(directory: Path, script: str) -> dict[str, Any]:
    program = directory / "hook"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return job(challenge="dns-01", dns=settings(hook=[str(program), "first"]))


def settings(**more: Any) -> dict[str, Any]:
    return {"hook": [], "wait": 0.01, "resolver": None, "resolver_port": 53, **more}


def test_a_page_is_written_for_all_to_read_and_removed(tmp_path: Path) -> None:
    proof = make_proof(job(webroot=str(tmp_path)), "mail.example.test", TOKEN, f"{TOKEN}.print")
    umask = os.umask(0o077)  # as the systemd unit has it
    try:
        proof.put()
    finally:
        os.umask(umask)
    path = tmp_path / ".well-known/acme-challenge" / TOKEN
    assert [each.stat().st_mode & 0o777 for each in (path.parent.parent, path.parent)] == [0o755, 0o755]
    assert path.read_text() == f"{TOKEN}.print"
    assert path.stat().st_mode & 0o777 == 0o644
    proof.remove()
    proof.remove()
    assert not path.exists()


@pytest.mark.parametrize("token", ["../../../../etc/passwd", "a/b" * 10, "", "short", "x" * 300, f"{TOKEN}\n"])
def test_a_token_that_is_none_leads_to_no_file(tmp_path: Path, token: str) -> None:
    with pytest.raises(ChallengeFailed, match="token"):
        make_proof(job(webroot=str(tmp_path)), "mail.example.test", token, "x")


def test_a_web_root_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ChallengeFailed, match="cannot be written"):
        make_proof(job(webroot=str(tmp_path / "file")), "mail.example.test", TOKEN, "x").put()


def test_a_link_in_the_web_root_is_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / ".well-known/acme-challenge"
    directory.mkdir(parents=True)
    (tmp_path / "ours").write_text("ours")
    (directory / TOKEN).symlink_to(tmp_path / "ours")
    with pytest.raises(ChallengeFailed, match="cannot be written"):
        make_proof(job(webroot=str(tmp_path)), "mail.example.test", TOKEN, "x").put()
    assert (tmp_path / "ours").read_text() == "ours"


def test_our_own_listener_needs_nothing() -> None:
    assert isinstance(make_proof(job(), "mail.example.test", TOKEN, "x"), Nothing)


def test_a_hook_is_told_what_to_do_without_a_shell(tmp_path: Path) -> None:
    told = hook(tmp_path, f'printf "%s|" "$@" >>{tmp_path}/log; echo noise')
    proof = make_proof(told, "example.test", "", "a;b $(c)")
    proof.put()
    proof.remove()
    record = "_acme-challenge.example.test"
    assert (tmp_path / "log").read_text() == f"first|add|{record}|a;b $(c)|first|remove|{record}|a;b $(c)|"


def test_what_a_hook_says_is_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_proof(hook(tmp_path, "echo a secret; echo what is wrong >&2"), "example.test", "", "x").put()
    assert capfd.readouterr() == ("", "what is wrong\n")


def test_a_hook_that_fails_or_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ChallengeFailed, match="failed with status 3"):
        make_proof(hook(tmp_path, "exit 3"), "example.test", "", "x").put()
    missing = job(challenge="dns-01", dns=settings(hook=[str(tmp_path / "none")]))
    with pytest.raises(ChallengeFailed, match="cannot be run: No such file"):
        make_proof(missing, "example.test", "", "x").put()


def test_a_hook_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenges, "HOOK_TIME", 0.3)
    with pytest.raises(ChallengeFailed, match=r"killed after 0\.3 seconds"):
        make_proof(hook(tmp_path, "exec sleep 60"), "example.test", "", "x").put()


def test_one_that_hung_is_given_less_time_to_take_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenges, "HOOK_TIME", 0.3)
    proof = make_proof(hook(tmp_path, "exec sleep 60"), "example.test", "", "x")
    with pytest.raises(ChallengeFailed):
        proof.put()
    given: list[float] = []

    def run(*_words: object, timeout: float, **_more: object) -> SimpleNamespace:
        given.append(timeout)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(challenges.subprocess, "run", run)
    proof.remove()
    assert given == [challenges.HUNG_HOOK_TIME]


@pytest.mark.parametrize("key", ["no base64!", "====", "\x00"])
def test_a_key_that_is_none_is_told(key: str) -> None:
    settings = {"server": "127.0.0.1", "port": 1, "wait": 0.1, "zone": "", "key_name": "k", "key": key}
    with pytest.raises(ChallengeFailed, match="key or zone"):
        ByUpdate({**settings, "key_algorithm": "hmac-sha256"}, "_acme-challenge.example.test", "x")


def test_a_name_server_that_is_down_is_told() -> None:
    settings = {"server": "127.0.0.1", "port": 1, "wait": 0.1, "zone": "example.test", "key_name": ""}
    proof = ByUpdate(settings, "_acme-challenge.example.test", "x")
    with pytest.raises(ChallengeFailed, match=r"cannot be updated: .*refused"):
        proof.put()
    proof.remove()


def test_how_long_the_authority_would_have_us_wait() -> None:
    assert seconds_of("120") == 120
    assert seconds_of("") == seconds_of("soon") == seconds_of("-5") == 0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 600))
    assert 590 < seconds_of(later) <= 600
