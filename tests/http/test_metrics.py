"""The page for Prometheus, as Prometheus' own parser reads it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mailserver.http.metrics import OLD_NAMES
from mailserver.http.services import PublishedAuthority
from tests.http.world import World


def worker(number: int, **more: Any) -> dict[str, Any]:
    return {
        "worker": number,
        "state": "serving",
        "answers": True,
        "sessions": {"all": 3, "logged_in": 2, "by_tls": [["imaps", "TLSv1.3", 2], ["imap", "none", 1]]},
        "memory": 1000,
        "accounts_kept": [5, 64],
        **more,
    }


def read(status: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answered = World(status=status).get("/metrics")
    assert answered.status == 200
    assert answered.fields["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answered.body.decode())
        for sample in family.samples
    }


def test_the_numbers_of_all_workers() -> None:
    status = {
        "listeners": [
            {"protocol": "imaps", "tls": "implicit", "cleartext": False},
            {"protocol": "pop3s", "tls": "implicit", "cleartext": False},
        ],
        "certificates": [{"host": "mail.example.test", "expires": 1796083200, "days_left": 29, "warning": None}],
        "workers": [worker(0), worker(1), {"worker": 2, "state": "retiring", "answers": False}],
        "event_counters": [
            ["login", "imaps", "TLSv1.3", 7],
            ["login", "imaps", "TLSv1.2", 1],
            ["timeout", "imaps", "none", 3],
        ],
        "restarts": 4,
        "exposures": 2,
        "bans": 4,
        "acme": [],
    }
    found = read(status)
    assert found["mailserver_logins_total", (("protocol", "imaps"), ("tls", "TLSv1.3"))] == 7
    assert found["mailserver_logins_total", (("protocol", "imaps"), ("tls", "TLSv1.2"))] == 1
    assert found["mailserver_sessions", (("protocol", "imaps"), ("tls", "TLSv1.3"))] == 4
    assert found["mailserver_sessions", (("protocol", "pop3s"), ("tls", "none"))] == 0
    assert found["mailserver_sessions_logged_in", ()] == 4
    assert found["mailserver_workers", (("state", "serving"),)] == 2
    assert found["mailserver_workers", (("state", "retiring"),)] == 1
    assert found["mailserver_workers_unresponsive", ()] == found["mailserver_workers_silent", ()] == 1
    assert found["mailserver_worker_restarts_total", ()] == 4
    assert found["mailserver_exposed_users", ()] == 2
    assert found["mailserver_certificate_days_left", (("host", "mail.example.test"),)] == 29
    assert found["mailserver_certificate_expiry_timestamp_seconds", (("host", "mail.example.test"),)] == 1796083200
    assert ("mailserver_certificate_warning_days", (("host", "mail.example.test"),)) not in found
    assert found["mailserver_accounts_cached", (("worker", "1"),)] == 5
    assert found["mailserver_accounts_cached_limit", (("worker", "1"),)] == 64
    assert found["mailserver_resident_memory_bytes", (("worker", "0"),)] == 1000


def test_a_host_name_cannot_break_the_page() -> None:
    status = {
        "listeners": [],
        "certificates": [{"host": 'a"\n\\', "expires": 86400, "days_left": 1, "warning": 7}],
        "workers": [worker(0)],
        "event_counters": [],
        "restarts": 0,
        "exposures": 2,
        "bans": 4,
        "acme": [{"host": 'a"\n\\', "failures": 3}],
    }
    found = read(status)
    assert found["mailserver_certificate_days_left", (("host", 'a"\n\\'),)] == 1
    assert found["mailserver_certificate_warning_days", (("host", 'a"\n\\'),)] == 7
    assert found["mailserver_acme_failures", (("host", 'a"\n\\'),)] == 3


def test_numbers_begin_at_0_and_where_they_can_grow() -> None:
    """A counter that appears with 1 had no rate before, and an alarm on it does not ring."""
    listeners = [
        {"protocol": "imap", "tls": "STARTTLS", "cleartext": False},
        {"protocol": "submission", "tls": "STARTTLS", "cleartext": True},
        {"protocol": "lmtp", "tls": "STARTTLS", "cleartext": False},
        {"protocol": "http", "tls": "none", "cleartext": False},
    ]
    status = {
        "listeners": listeners,
        "certificates": [],
        "workers": [],
        "event_counters": [["bug", "imap", "TLSv1.3", 1]],
        "restarts": 0,
        "exposures": 0,
        "bans": 4,
        "acme": [],
    }
    found = {
        (name.removeprefix("mailserver_").removesuffix("_total"), *(value for _label, value in labels)): number
        for (name, labels), number in read(status).items()
        if name.endswith("_total") and labels
    }
    assert found.pop(("internal_errors", "imap", "TLSv1.3")) == found.pop(("bugs", "imap", "TLSv1.3")) == 1
    assert set(found.values()) == {0}
    of = {name: {place[1:] for place in found if place[0] == name} for name in {place[0] for place in found}}
    every = {listener["protocol"] for listener in listeners}
    both = {"TLSv1.2", "TLSv1.3"}
    assert of["connections"] == {(protocol, "none") for protocol in every}
    assert of["tls_handshakes"] == {(protocol, tls) for protocol in every - {"http"} for tls in both}
    assert of["login_failures"] == {
        ("submission", "none"),
        *((one, tls) for one in ("imap", "submission") for tls in both),
    }
    assert "cleartext_at_tls_port" not in of
    assert (
        of["tls_handshake_failures"]
        == of["tls_at_starttls_port"]
        == {(protocol, "none") for protocol in every - {"http"}}
    )
    assert of["passwords_exposed"] == {("imap", "none"), ("submission", "none")}
    assert of["deliveries"] == {("lmtp", tls) for tls in (*both, "none")}
    assert of["http_requests"] == {("http", "none")}
    assert of["http_requests_at_mail_port"] == {(protocol, "none") for protocol in every - {"http"}}


@pytest.mark.parametrize(
    "field", ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy", "x-real-ip: ::1"]
)
@pytest.mark.parametrize("path", ["/metrics", "/health"])
def test_not_by_way_of_a_proxy_on_this_machine(path: str, field: str) -> None:
    asked = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n".encode()
    answered = World().ask(asked)
    assert answered.status == 403
    assert b"PROXY header" in answered.body
    assert World().get(path).status == (200 if path == "/metrics" else 503)


def test_the_own_authority_and_its_list() -> None:
    now = dt.datetime.now(dt.UTC)
    told = World(authority=PublishedAuthority("Ours", b"", now + dt.timedelta(days=80, hours=1))).get("/metrics").body
    assert b"\nmailserver_private_ca_days_left 80.0\n" in told
    assert b"\nmailserver_private_ca_expiry_timestamp_seconds " in told
    assert b"crl" not in told
    ended = PublishedAuthority("Ours", b"", now + dt.timedelta(days=80), b"list", now - dt.timedelta(hours=1))
    assert b"\nmailserver_private_ca_crl_days_left -1.0\n" in World(authority=ended).get("/metrics").body
    assert b"private_ca" not in World().get("/metrics").body


def test_renamed_metrics_keep_their_old_names() -> None:
    status = {
        "listeners": [{"protocol": "imaps", "tls": "implicit", "cleartext": False}],
        "certificates": [],
        "workers": [worker(0, message_octets=[7, 9], descriptors=3)],
        "event_counters": [["tls-failed", "imaps", "none", 5]],
        "restarts": 0,
        "exposures": 0,
        "bans": 4,
        "acme": [],
    }
    found = read(status)
    names = {name.removeprefix("mailserver_").removesuffix("_total") for name, _labels in found}
    assert found["mailserver_tls_failures_total", (("protocol", "imaps"), ("tls", "none"))] == 5
    assert found["mailserver_recent_octets", (("worker", "0"),)] == 7
    assert found["mailserver_recent_octets_limit", (("worker", "0"),)] == 9
    assert {new for new, old in OLD_NAMES.items() if old in names} == names & OLD_NAMES.keys()
    assert {"workers_silent", "open_descriptors", "memory_bytes", "accounts_kept"} <= names
