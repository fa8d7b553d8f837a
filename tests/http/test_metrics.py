"""The page for Prometheus, as Prometheus' own parser reads it."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.http.world import World


def worker(seat: int, **more: Any) -> dict[str, Any]:
    return {
        "seat": seat,
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
        "listeners": [{"protocol": "imaps"}, {"protocol": "pop3s"}],
        "certificates": [{"host": "mail.example.test", "days_left": 29}],
        "workers": [worker(0), worker(1), {"seat": 2, "state": "retiring", "answers": False}],
        "tally": [["login", "imaps", "TLSv1.3", 7], ["login", "imaps", "TLSv1.2", 1], ["timeout", "imaps", "none", 3]],
        "restarts": 4,
        "exposures": 2,
    }
    found = read(status)
    assert found["mailserver_logins_total", (("protocol", "imaps"), ("tls", "TLSv1.3"))] == 7
    assert found["mailserver_logins_total", (("protocol", "imaps"), ("tls", "TLSv1.2"))] == 1
    assert found["mailserver_sessions", (("protocol", "imaps"), ("tls", "TLSv1.3"))] == 4
    assert found["mailserver_sessions", (("protocol", "pop3s"), ("tls", "none"))] == 0
    assert found["mailserver_sessions_logged_in", ()] == 4
    assert found["mailserver_workers", (("state", "serving"),)] == 2
    assert found["mailserver_workers", (("state", "retiring"),)] == 1
    assert found["mailserver_workers_silent", ()] == 1
    assert found["mailserver_worker_restarts_total", ()] == 4
    assert found["mailserver_exposed_users", ()] == 2
    assert found["mailserver_certificate_days_left", (("host", "mail.example.test"),)] == 29
    assert found["mailserver_accounts_kept", (("worker", "1"),)] == 5
    assert found["mailserver_accounts_kept_limit", (("worker", "1"),)] == 64
    assert found["mailserver_memory_bytes", (("worker", "0"),)] == 1000


def test_a_host_name_cannot_break_the_page() -> None:
    status = {
        "listeners": [],
        "certificates": [{"host": 'a"\n\\', "days_left": 1}],
        "workers": [worker(0)],
        "tally": [],
        "restarts": 0,
        "exposures": 2,
    }
    assert read(status)["mailserver_certificate_days_left", (("host", 'a"\n\\'),)] == 1
