"""When an authority would have certificates renewed (RFC 9773): what it is asked, and what is believed of its answer."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailserver.config.model import Config
from mailserver.tls.acme import renewal_info
from mailserver.tls.acme.child import AcmeError
from mailserver.tls.acme.schedule import (
    FAILED_AGAIN,
    LATEST_AGAIN,
    PASSING_TRIES,
    SOONEST_AGAIN,
    CurrentCertificate,
    Window,
)
from mailserver.tls.serving import validation
from tests.tls.site import Site, authority

NOW = 1_800_000_000
DAY = 86400
HOST = "mail.example.test"


def certificate(serial: int, key_identifier: bytes | None) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), serial)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2026, 4, 1, tzinfo=dt.UTC))
    )
    if key_identifier is not None:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(key_identifier, None, None), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_certificate_is_called_as_in_the_example_of_the_rfc() -> None:
    found = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    assert renewal_info.identifier(certificate(0x87654321, found)) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    assert renewal_info.identifier(certificate(0x7F, found)).partition(".")[2] == "fw", "no octet without need"


def test_one_without_such_a_name_has_none() -> None:
    assert renewal_info.identifier(certificate(1, None)) == renewal_info.identifier(b"no PEM") == ""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    site = Site(tmp_path).add("example.test", [HOST])
    site.more = '[acme]\nterms_of_service = "agreed"\nwebroot = "/var/www"\n'
    return site.config()


@pytest.fixture
def held() -> CurrentCertificate:
    chain, _key = validation.issue(authority(), [HOST])
    return CurrentCertificate(
        HOST, NOW, NOW + 90 * DAY, self_signed=False, fingerprint="of the first", of_authority=chain
    )


def told(
    monkeypatch: pytest.MonkeyPatch, config: Config, held: CurrentCertificate, row: Any, before: Window | None = None
) -> Window:
    """What comes of an answer with one row; of an exception, without an answer."""

    def ask(_self: object, do: str, job: dict[str, Any], **_how: object) -> Any:
        assert (do, job["certificates"]) == ("renewal-infos", [renewal_info.identifier(held.of_authority)])
        if isinstance(row, Exception):
            raise row
        return {"windows": [{"certificate": job["certificates"][0], **row}]} if isinstance(row, dict) else row

    monkeypatch.setattr(renewal_info.Child, "ask", ask)
    (found,) = renewal_info.windows(config, [held], {} if before is None else {HOST: before}, NOW)
    return found


def window(start: int = NOW + DAY, end: int = NOW + 3 * DAY, wait: int = 3600) -> dict[str, Any]:
    return {"start": start, "end": end, "retry_after": wait, "explanation": "https://ca.test/why\x1b[2J"}


def test_a_moment_in_the_window_is_chosen_and_kept_while_it_is_the_same(
    monkeypatch: pytest.MonkeyPatch, config: Config, held: CurrentCertificate
) -> None:
    found = [told(monkeypatch, config, held, window()) for _ in range(20)]
    assert all(NOW + DAY <= each.moment <= NOW + 3 * DAY for each in found)
    assert len({each.moment for each in found}) > 1
    first = found[0]
    assert (first.fingerprint, first.again, first.explanation) == (
        "of the first",
        NOW + 3600,
        "https://ca.test/why [2J",
    )
    assert told(monkeypatch, config, held, window(), first).moment == first.moment
    moved = told(monkeypatch, config, held, window(NOW - 2 * DAY, NOW - DAY), first)
    assert NOW - 2 * DAY <= moved.moment <= NOW - DAY


@pytest.mark.parametrize(
    ("wait", "again"), [(0, FAILED_AGAIN), (1, SOONEST_AGAIN), (7200, 7200), (10**9, LATEST_AGAIN)]
)
def test_it_is_asked_again_when_the_authority_says_within_reason(
    monkeypatch: pytest.MonkeyPatch, config: Config, held: CurrentCertificate, wait: int, again: int
) -> None:
    assert told(monkeypatch, config, held, window(wait=wait)).again == NOW + again


def test_one_that_cannot_say_yet_says_when(
    monkeypatch: pytest.MonkeyPatch, config: Config, held: CurrentCertificate
) -> None:
    busy = {"error": "503", "retry_after": 7200, "passing": True}
    assert told(monkeypatch, config, held, busy).again == NOW + 7200


@pytest.mark.parametrize("row", [{"error": "500", "retry_after": 0, "passing": True}, AcmeError("it is down")])
def test_what_may_pass_is_asked_again_soon_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, config: Config, held: CurrentCertificate, row: Any
) -> None:
    """RFC 9773 4.3.3: a back-off with a capped number of tries, and then as for what does not pass."""
    waits, before = [], Window(HOST, "of the first", 50, 40, 60, NOW)
    for _ in range(PASSING_TRIES + 2):
        before = told(monkeypatch, config, held, row, before)
        waits.append(before.again - NOW)
        assert before.moment == 50, "what was said before counts on"
    assert waits == [300, 600, 1200, 2400, FAILED_AGAIN, FAILED_AGAIN]
    assert told(monkeypatch, config, held, window(), before).failures == 0
    first = told(monkeypatch, config, held, row)
    assert [each.again - NOW for each in (first, told(monkeypatch, config, held, row, first))] == [300, 600]
    for refused in ({"error": "404", "retry_after": 0, "passing": False}, AcmeError("never", decided=True)):
        assert told(monkeypatch, config, held, refused).again == NOW + FAILED_AGAIN


@pytest.mark.parametrize(
    "row",
    [
        {"error": "404"},
        {"error": "404", "retry_after": 0, "passing": False},
        {"error": "404", "retry_after": "soon", "passing": True},
        {"windows": []},
        {"windows": 5},
        {"windows": [5]},
        window(NOW + DAY, NOW + DAY),
        window(NOW + 2 * DAY, NOW + DAY),
        window(-5, 7),
        window(1, 1 << 60),
        {**window(), "start": "tomorrow"},
        {**window(), "explanation": None},
    ],
)
def test_what_is_no_answer_leaves_what_was_said_before(
    monkeypatch: pytest.MonkeyPatch, config: Config, held: CurrentCertificate, row: Any
) -> None:
    assert told(monkeypatch, config, held, row) == Window(HOST, "of the first", 0, 0, 0, NOW + FAILED_AGAIN)
    before = Window(HOST, "of the first", 50, 40, 60, NOW, "https://ca.test/why")
    after = told(monkeypatch, config, held, row, before)
    assert (after.moment, after.again) == (50, NOW + FAILED_AGAIN)
    of_another = Window(HOST, "of another", 50, 40, 60, NOW)
    assert told(monkeypatch, config, held, row, of_another).moment == 0
