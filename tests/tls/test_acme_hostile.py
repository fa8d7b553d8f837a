"""An ACME authority that is not honest, or broken: it gets nothing done that is not of our host, and no time without end."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailserver.tls.acme import acme_state, client, issuance
from mailserver.tls.acme.challenges import Page
from mailserver.tls.acme.child import AcmeError
from mailserver.tls.acme.network import LONGEST, NONCES
from mailserver.tls.acme.order import make_request
from mailserver.tls.keypair.pair import parse_pair
from mailserver.tls.serving import validation
from tests.tls.acme_ca import Answer, Authority, answer, problem

HOST = "mail.example.test"


class World:
    """One job of a child process, in this process."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.authority = authority
        self.root = directory / "pages"
        self.root.mkdir()
        self.key, csr = make_request(HOST, "ecdsa")
        self.told: list[dict[str, Any]] = []
        self.job: dict[str, Any] = {
            "do": "obtain",
            "directory": f"{authority.url}/dir",
            "account": acme_state.account_key(directory, "here").reveal().decode(),
            "contact": [],
            "ca_file": str(authority.ca_file),
            "eab": None,
            "host": HOST,
            "order": "",
            "csr": csr.decode(),
            "replaces": "",
            "challenge": "http-01",
            "webroot": str(self.root),
            "dns": None,
        }

    def do(self, **more: Any) -> dict[str, Any]:
        return client.do({**self.job, **more}, self.told.append)

    def error(self, **more: Any) -> str:
        return str(self.do(**more)["error"])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    sleep = time.sleep
    monkeypatch.setattr("acme.client.time.sleep", lambda _seconds: sleep(0.01))
    with Authority(tmp_path).running() as authority:
        yield World(tmp_path, authority)


def changed(**fields: Any) -> Any:
    """An honest answer with other fields in its body."""

    def change(honest: Answer) -> Answer:
        status, headers, octets = honest
        return status, headers, json.dumps({**json.loads(octets), **fields}).encode()

    return change


def test_an_honest_one_is_understood(world: World) -> None:
    chain = world.do()["chain"].encode()
    assert parse_pair(chain, world.key.reveal()).names == (HOST,)
    assert world.told == [{"order": f"{world.authority.url}/order"}]
    assert not list(world.root.rglob("t*")), "the proof is taken away"


def test_the_certificate_that_is_replaced_is_named_where_the_authority_wants_to_know(world: World) -> None:
    assert "chain" in world.do(replaces="aa.bb")
    world.authority.windows = True
    assert "chain" in world.do(replaces="aa.bb")
    orders = [body for path, body in world.authority.asked if path == "/newOrder"]
    assert [order.get("replaces") for order in orders] == [None, "aa.bb"]


UNTYPED = answer({"detail": "not here"}, 404)


@pytest.mark.parametrize(
    "refusal",
    [
        problem("alreadyReplaced", "again", 409),
        problem("malformed", "of another"),
        problem("serverInternal", "no order of that certificate", 500),
        (409, {}, b""),
        UNTYPED,
    ],
)
def test_one_that_will_not_replace_a_certificate_gives_another_all_the_same(world: World, refusal: Answer) -> None:
    world.authority.windows = True
    refusals = [refusal]
    world.authority.odd["/newOrder"] = lambda honest: refusals.pop() if refusals else honest
    assert "chain" in world.do(replaces="aa.bb")


@pytest.mark.parametrize("forgotten", [problem("malformed", "no order", 404), (404, {}, b"<html>"), UNTYPED])
def test_an_order_that_the_authority_has_forgotten_is_placed_anew(world: World, forgotten: Answer) -> None:
    answers = [forgotten]
    world.authority.odd["/order"] = lambda honest: answers.pop() if answers else honest
    assert "chain" in world.do(order=f"{world.authority.url}/order")
    assert world.authority.paths().count("/newOrder") == 1


def test_one_that_has_no_time_now_is_not_asked_twice(world: World) -> None:
    """Without the certificate to replace, an order counts against the authority's limits."""
    world.authority.windows = True
    world.authority.odd["/newOrder"] = lambda _honest: problem("rateLimited", "slow", 429, **{"Retry-After": "7"})
    refused = world.do(replaces="aa.bb")
    assert (refused["code"], refused["retry_after"], refused["decided"]) == ("rateLimited", 7, False)
    assert world.authority.paths().count("/newOrder") == 1


@pytest.mark.parametrize(
    "busy",
    [problem("serverInternal", "later", 500), (503, {}, b"<html>"), (502, {}, b"{}"), (429, {}, b"<html>")],
)
def test_an_order_is_not_placed_anew_because_the_authority_is_busy(world: World, busy: Answer) -> None:
    world.authority.odd["/order"] = lambda _honest: busy
    refused = world.do(order=f"{world.authority.url}/order")
    assert not refused["decided"]
    assert "/newOrder" not in world.authority.paths()


@pytest.mark.parametrize(
    ("status", "skipped"),
    [("pending", []), ("ready", ["/authz"]), ("valid", ["/authz", "/finalize"])],
)
def test_an_order_is_gone_on_with_at_whatever_step_it_is(world: World, status: str, skipped: list[str]) -> None:
    first = world.do()
    world.authority.status = status
    world.authority.asked.clear()
    again = world.do(order=f"{world.authority.url}/order")
    assert "chain" in again
    assert (again == first) == (status == "valid")
    assert "/newOrder" not in world.authority.paths()
    assert not set(skipped) & set(world.authority.paths())


@pytest.mark.parametrize(
    "gone", [problem("malformed", "no such order", 404), answer({"status": "invalid"}), (404, {}, b"")]
)
def test_an_order_that_the_authority_has_given_up_is_placed_anew(world: World, gone: Answer) -> None:
    answers = [gone]
    world.authority.odd["/order"] = lambda honest: answers.pop() if answers else honest
    assert "chain" in world.do(order=f"{world.authority.url}/order")
    assert world.authority.paths().count("/newOrder") == 1


def test_a_child_whose_parent_was_killed_ends_with_its_program(world: World, tmp_path: Path) -> None:
    program = tmp_path / "hook"
    program.write_text(f"#!/bin/sh\n[ $1 = add ] && touch {tmp_path}/begun && sleep 60\ntouch {tmp_path}/removed\n")
    program.chmod(0o755)
    dns = {"hook": [str(program)], "wait": 0.01, "resolver": "127.0.0.1", "resolver_port": 1}
    challenge = {"type": "dns-01", "url": f"{world.authority.url}/chall", "status": "pending", "token": "t" * 43}
    world.authority.odd["/authz"] = changed(challenges=[challenge])
    code = (
        "from mailserver.tls.acme import client, challenges\n"
        "challenges.target = lambda record, _resolver, _port: record\n"
        "client.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({**world.job, "challenge": "dns-01", "dns": dns}).encode())
        child.stdin.close()
        assert b"order" in child.stdout.readline()
        end = time.monotonic() + 30
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        child.stdout.close()  # as by the end of the one who reads it
        assert child.wait(30) == -signal.SIGKILL
    assert not (tmp_path / "removed").exists()


# --- What it says of names


@pytest.mark.parametrize(
    "odd",
    [
        {"identifiers": [{"type": "dns", "value": "bank.example.test"}]},
        {"identifiers": [{"type": "dns", "value": HOST}, {"type": "dns", "value": "bank.example.test"}]},
        {"identifiers": []},
        {"authorizations": []},
    ],
)
def test_an_order_for_other_names_is_not_gone_on_with(world: World, odd: dict[str, Any]) -> None:
    world.authority.odd["/newOrder"] = changed(**odd)
    assert "the order is not for mail.example.test alone" in world.error()
    assert "/authz" not in world.authority.paths()
    assert world.told == []


def test_so_many_authorizations_are_not_looked_at(world: World) -> None:
    many = [f"{world.authority.url}/authz"] * 10000
    world.authority.odd["/newOrder"] = changed(authorizations=many)
    assert "not for mail.example.test alone" in world.error()
    assert "/authz" not in world.authority.paths()


@pytest.mark.parametrize("name", ["bank.example.test", "x.$(reboot)", f"{HOST}\n", "../../etc", "*.example.test"])
def test_nothing_is_proved_of_other_names(world: World, name: str) -> None:
    world.authority.odd["/authz"] = changed(identifier={"type": "dns", "value": name})
    assert "the authorization is not for mail.example.test" in world.error()
    assert "/chall" not in world.authority.paths()
    assert not list(world.root.iterdir())


@pytest.mark.parametrize(
    "token", ["../../../../tmp/page", "/etc/cron.d/x" + "y" * 20, "t" * 5000, "", "a b" * 10, "\0" * 20]
)
def test_a_token_is_no_path(world: World, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = {"type": "http-01", "url": f"{world.authority.url}/chall", "status": "pending", "token": token}
    world.authority.odd["/authz"] = changed(challenges=[challenge])
    written: list[Path] = []
    put = Page.put
    monkeypatch.setattr(Page, "put", lambda page: (written.append(page._path), put(page)))
    done = world.do()
    # What is left of it when it is read as base64url may be one.
    assert "error" in done or [path.parent for path in written] == [world.root / ".well-known/acme-challenge"]
    assert all(path.resolve() == path for path in written)
    assert not [path for path in world.root.rglob("*") if path.is_file()]


def test_windows_are_read_one_by_one(world: World) -> None:
    world.authority.windows = True
    window = {"start": "2027-01-02T00:00:00Z", "end": "2027-01-03T00:00:00+01:00"}
    body = {"suggestedWindow": window, "explanationURL": "https://ca.test/why"}
    world.authority.odd["/info/good"] = lambda _honest: answer(body, **{"Retry-After": "21600"})
    world.authority.odd["/info/busy"] = lambda _honest: problem("serverInternal", "later", 503, **{"Retry-After": "60"})
    backwards = {"suggestedWindow": {"start": window["end"], "end": window["start"]}}
    world.authority.odd["/info/backwards"] = lambda _honest: answer(backwards)
    world.authority.odd["/info/nonsense"] = lambda _honest: answer({"suggestedWindow": {"start": 5}})
    names = ["good", "busy", "backwards", "nonsense"]
    good, busy, *others = world.do(do="renewal-infos", certificates=names)["windows"]
    assert (good["start"], good["end"], good["retry_after"]) == (1798848000, 1798930800, 21600)
    assert (busy["retry_after"], "later" in busy["error"]) == (60, True)
    assert [(row["certificate"], row["retry_after"]) for row in others] == [("backwards", 0), ("nonsense", 0)]
    assert all(row["error"] for row in others)
    assert [row["passing"] for row in (busy, *others)] == [True, False, False]
    assert not [path for path in world.authority.paths() if path == "/newAccount"], "nobody need log in for it"


# --- Without end


def test_a_body_without_end_is_not_read_on(world: World) -> None:
    world.authority.odd["/newOrder"] = lambda _honest: (201, {}, b" " * (20 << 20))
    assert f"has more than {LONGEST} octets" in world.error()


def test_one_that_grows_when_it_is_unpacked_is_not_either(world: World) -> None:
    packed = gzip.compress(b" " * (50 << 20))
    assert len(packed) < LONGEST
    world.authority.odd["/dir"] = lambda _honest: (200, {"Content-Encoding": "gzip"}, packed)
    assert f"has more than {LONGEST} octets" in world.error()


@pytest.mark.parametrize(
    "where", ["{url}/dir", "http://127.0.0.1/dir", "https://elsewhere.example/dir", "file:///etc/passwd"]
)
@pytest.mark.parametrize("path", ["/dir", "/newOrder"])
def test_nobody_is_sent_elsewhere(world: World, where: str, path: str) -> None:
    place = where.format(url=world.authority.url)
    world.authority.odd[path] = lambda _honest: (302, {"Location": place}, b"")
    assert "redirects to" in world.error()
    assert world.authority.paths().count(path) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1/order", "file:///etc/passwd", "ftp://x/", ""])
def test_nothing_but_https_is_spoken(world: World, address: str) -> None:
    world.authority.odd["/dir"] = changed(newOrder=address)
    assert "without https" in world.error()


def test_nonces_that_are_always_wrong_end_it(world: World) -> None:
    world.authority.odd["/newAccount"] = lambda _honest: problem("badNonce", "another", 400)
    assert "badNonce" in world.error()
    assert world.authority.paths().count("/newAccount") == NONCES
    assert not world.do()["decided"]


@pytest.mark.parametrize("path", ["/order", "/authz"])
def test_a_decision_that_never_comes_is_not_waited_for(
    world: World, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuance, "ORDER_TIME", 1)
    status = "processing" if path == "/order" else "pending"
    world.authority.odd[path] = changed(status=status)
    refused = world.do()
    assert refused["error"] == "the authority did not decide in time"
    assert not refused["decided"], "it may decide yet"


def test_a_wait_without_end_is_told_as_it_is_and_cut_by_the_plan(world: World) -> None:
    world.authority.odd["/newOrder"] = lambda _honest: problem("rateLimited", "slow", 429, **{"Retry-After": "9" * 30})
    assert world.do()["retry_after"] == int("9" * 30)


def test_what_has_ended_before_is_as_it_should_be(world: World) -> None:
    """A process that was killed behind the authority's answer does not know of it."""
    world.authority.odd["/newAccount"] = lambda _honest: problem("unauthorized", "was deactivated", 403)
    assert world.do(do="deactivate") == {}
    world.authority.odd["/newAccount"] = lambda _honest: problem("rateLimited", "later", 429)
    assert "rateLimited" in world.error(do="deactivate")
    del world.authority.odd["/newAccount"]
    certificate = world.authority.ca_file.read_text()
    world.authority.odd["/revokeCert"] = lambda _honest: problem("alreadyRevoked", "before")
    assert world.do(do="revoke", certificate=certificate, reason=1) == {}
    world.authority.odd["/revokeCert"] = lambda _honest: problem("badRevocationReason", "not so")
    assert "badRevocationReason" in world.error(do="revoke", certificate=certificate, reason=1)
    terms = world.do(do="revocation-terms")
    assert terms == {"address": f"{world.authority.url}/revokeCert", "nonce": "bm9uY2U"}
    by_own_key = {"do": "revoke-signed", "address": terms["address"], "signed": '{"payload": ""}'}
    assert world.do(**by_own_key)["code"] == "badRevocationReason"
    world.authority.odd["/revokeCert"] = lambda _honest: problem("alreadyRevoked", "before")
    assert world.do(**by_own_key) == {}


def test_that_there_is_no_account_is_told_by_its_type(world: World) -> None:
    """By which a revocation goes on with the certificate's own key."""
    world.authority.odd["/newAccount"] = lambda _honest: problem("accountDoesNotExist", "who?")
    refused = world.do(do="revoke", certificate=world.authority.ca_file.read_text(), reason=1)
    assert (refused["code"], refused["decided"]) == ("accountDoesNotExist", True)


# --- In words


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        (problem("rejectedIdentifier", "no such name"), "the authority refuses: rejectedIdentifier: no such name"),
        (problem("alreadyReplaced", "before", 403), "the authority refuses: alreadyReplaced: before"),
        (
            answer(
                {
                    "type": "urn:ietf:params:acme:error:compound",
                    "detail": "see below",
                    "subproblems": [
                        {
                            "type": "urn:ietf:params:acme:error:caa",
                            "detail": "another authority",
                            "identifier": {"type": "dns", "value": HOST},
                        }
                    ],
                },
                403,
            ),
            f"the authority refuses: compound: see below; {HOST}: caa: another authority",
        ),
        (answer({"title": "Bad Gateway"}, 502), "the authority refuses: Bad Gateway"),
        ((503, {}, b"<html>"), "the authority answers with status 503 Service Unavailable without a reason"),
        ((409, {}, b""), "the authority reports a conflict (status 409)"),
    ],
)
def test_a_refusal_is_told_with_its_type_and_what_the_authority_says(
    world: World, answered: Answer, words: str
) -> None:
    world.authority.odd["/newOrder"] = lambda _honest: answered
    assert world.error() == words


def test_what_an_order_ended_with_is_told(world: World) -> None:
    reason = {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA names another authority", "status": 403}
    world.authority.odd["/order"] = changed(status="invalid", error=reason)
    assert world.error() == "the authority issued nothing: caa: CAA names another authority"


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("https://127.0.0.1:1/dir", "the authority cannot be reached: 127.0.0.1:1: Connection refused"),
        ("https://nowhere.invalid/dir", "the authority cannot be reached: nowhere.invalid: "),
    ],
)
def test_an_authority_out_of_reach_is_told_in_few_words(world: World, directory: str, words: str) -> None:
    told = world.error(directory=directory)
    assert told.startswith(words)
    assert len(told) < 120
    assert "Pool" not in told


def test_an_authority_that_is_not_trusted_is_told_with_the_reason(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(validation.make_ca("Another")[0])
    where = world.authority.url.removeprefix("https://")
    told = world.error(ca_file=str(other))
    assert told.startswith(f"the certificate of {where} is not trusted (ca_file): ")
    assert "certificate" in told.partition("(ca_file)")[2]
    assert "Pool" not in told


# --- Nonsense


@pytest.mark.parametrize("path", ["/dir", "/newAccount", "/newOrder", "/authz", "/chall", "/finalize", "/order"])
@pytest.mark.parametrize(
    "octets", [b"", b"[]", b"5", b"null", b'"x"', b"{}", b"\xff\xfe", b'{"status": 5}', b"[" * 100000]
)
def test_what_is_no_answer_ends_in_one_sentence(
    world: World, path: str, octets: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuance, "ORDER_TIME", 0.1)
    world.authority.odd[path] = lambda honest: (honest[0], honest[1], octets)
    done = world.do()
    assert "chain" in done or done["error"]


def test_what_a_stranger_says_moves_no_cursor(world: World) -> None:
    world.authority.odd["/newOrder"] = lambda _honest: problem(
        "unauthorized", "\x1b[2J\x07no\r\nacme: all is well\u202e" * 100
    )
    words = world.error()
    assert "\n" not in words
    # The rest is done where the child's words come in: see AcmeError.
    shown = str(AcmeError(words))
    assert shown.isprintable()
    assert len(shown) <= 500
