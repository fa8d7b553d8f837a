"""A change of the account's key, and a revocation without the account: what is kept, and which key signs what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from acme import jws, messages
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from josepy.util import ComparableKey

from mailserver.config.model import Config
from mailserver.system.as_user import UserProcess
from mailserver.tls.acme import account, acme_state
from mailserver.tls.acme.child import AcmeError, Child
from mailserver.tls.ca.authority import alternatives, certificate_pem, key_pem, make_authority, sign
from mailserver.tls.keypair.pair import Pair, parse_pair
from tests.tls.site import Site


@pytest.fixture
def config(tmp_path: Path) -> Config:
    site = Site(tmp_path).add("example.test", ["mail.example.test"])
    site.managed.add("example.test")
    site.of_domain["example.test"] = ["acme = true"]
    site.more = '[acme]\nterms_of_service = "agreed"\nwebroot = "/var/www"\n'
    return site.config()


@pytest.mark.parametrize("decided", [True, False])
def test_a_refused_change_is_dropped_and_one_that_was_cut_short_goes_on_with_its_key(
    config: Config, monkeypatch: pytest.MonkeyPatch, *, decided: bool
) -> None:
    assert config.acme is not None
    place = (config.server.state_dir, config.acme.directory)
    before = acme_state.account_key(*place)
    offered: list[str] = []
    outcomes: list[Exception | dict[str, Any]] = [AcmeError("not now", decided=decided), {}]

    def ask(_child: Child, do: str, job: dict[str, Any], **_more: object) -> dict[str, Any]:
        assert do == "roll-over"
        offered.append(job["next"])
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(Child, "ask", ask)
    with pytest.raises(AcmeError):
        account.roll_over(config)
    assert acme_state.account_key(*place) == before
    assert acme_state.is_changing(*place) == (not decided)
    assert account.finish_roll_over(config) == (not decided)
    if not decided:
        assert offered[0] == offered[1], "the authority may have taken it already"
        assert acme_state.account_key(*place).reveal().decode() == offered[0]


HOST = "mail.example.test"
PLACE = "https://ca.test/revoke-cert"


class Answers:
    """What an authority answers to each job, in turn; `asked` are the jobs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Exception | dict[str, Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        left = list(answers)

        def ask(_child: Child, do: str, job: dict[str, Any], **_more: object) -> dict[str, Any]:
            self.asked.append((do, job))
            outcome = left.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(Child, "ask", ask)

    @property
    def jobs(self) -> list[str]:
        return [do for do, _job in self.asked]


TERMS = {"address": PLACE, "nonce": "oFvnlFP1wIhRlYS2jTaXbA"}


def refused(code: str) -> AcmeError:
    return AcmeError(f"the authority refuses: {code}", decided=True, code=code)


def pair_of(key: Any) -> Pair:
    made = make_authority("Of the tests", key)
    certificate = sign(made, key.public_key(), x509.Name([]), alternatives([HOST]), "server", days=1)
    return parse_pair(certificate_pem(certificate), key_pem(key))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["p256", "p384", "rsa"],
)
@pytest.mark.parametrize("why", ["unauthorized", "accountDoesNotExist"])
def test_what_another_account_has_asked_for_is_revoked_by_its_own_key(
    config: Config, monkeypatch: pytest.MonkeyPatch, key: Any, why: str
) -> None:
    """RFC 8555 7.6: with the public key in the header, which another implementation finds right."""
    pair = pair_of(key)
    answers = Answers(monkeypatch, refused(why), TERMS, refused("badNonce"), {**TERMS, "nonce": "second"}, {})
    assert not account.revoke(config, pair, "keyCompromise")
    assert answers.jobs == ["revoke", *["revocation-terms", "revoke-signed"] * 2]
    last = answers.asked[-1][1]
    assert last["address"] == PLACE
    found = jws.JWS.json_loads(last["signed"])
    header = found.signature.combined
    assert found.verify()
    assert (header.url, header.nonce, header.kid) == (PLACE, jws.Header._fields["nonce"].decode("second"), None)
    assert ComparableKey(key.public_key()) == header.jwk.key
    body = json.loads(found.payload)
    certificate = x509.load_pem_x509_certificates(pair.chain_pem)[0]
    assert body["reason"] == 1
    assert messages.Revocation.from_json(body).certificate == certificate
    # The key itself goes to no other process.
    assert all("PRIVATE KEY" not in str(job) for _do, job in answers.asked)


def test_the_type_of_a_problem_comes_from_the_process_that_asks(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"error": "no", "code": "unauthorized", "retry_after": 7, "decided": True}
    monkeypatch.setattr(UserProcess, "ask", lambda *_words, **_more: json.dumps(row).encode() + b"\n")
    with pytest.raises(AcmeError) as caught:
        Child(config).ask("revoke", {})
    assert (str(caught.value), caught.value.code, caught.value.retry_after) == ("no", "unauthorized", 7)
    assert caught.value.decided


def test_a_revocation_that_the_account_may_do_asks_no_more(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(monkeypatch, {})
    assert account.revoke(config, pair_of(ec.generate_private_key(ec.SECP256R1())), "superseded")
    assert answers.jobs == ["revoke"]
    assert answers.asked[0][1]["reason"] == 4


@pytest.mark.parametrize(
    "answers",
    [
        [refused("badRevocationReason")],
        [refused("unauthorized"), {"address": PLACE, "nonce": 'x"y'}],
        [refused("unauthorized"), {"address": PLACE}],
        [refused("unauthorized"), TERMS, refused("malformed")],
        [refused("unauthorized"), *[TERMS, refused("badNonce")] * account.NONCES],
    ],
)
def test_what_is_refused_is_told_and_ends(
    config: Config, monkeypatch: pytest.MonkeyPatch, answers: list[Exception | dict[str, Any]]
) -> None:
    asked = Answers(monkeypatch, *answers)
    with pytest.raises(AcmeError):
        account.revoke(config, pair_of(ec.generate_private_key(ec.SECP256R1())), "keyCompromise")
    assert len(asked.jobs) == len(answers)
