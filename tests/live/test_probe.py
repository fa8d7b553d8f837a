"""The probe and the attack of the administrator's command, on a whole server."""

from __future__ import annotations

import json

from tests.server import Server


def test_probe_finds_nothing_wrong(shared: Server) -> None:
    done = shared.run_cli(
        "tls",
        "probe",
        "--no-dns",
        "--json",
        "--ca",
        str(shared.ca),
        "--name",
        "mail.example.org",
        "--config",
        str(shared.config),
    )
    told = json.loads(done.stdout)
    assert told["findings"] == []
    protocols = {row["place"].split()[0] for row in told["rows"]}
    assert protocols == {"imap", "imaps", "pop3", "pop3s", "submission", "submissions", "lmtp", "https"}
    assert any(row["place"] == f"lmtp {shared.dir}/lmtp.socket" for row in told["rows"])
    own = [row for row in told["rows"] if row["kind"] == "exact"]
    assert {row["subject"] for row in own} == {"mail.example.org"}
    assert {row["subject"] for row in told["rows"] if row["kind"] != "exact"} == {"mail.example.test"}
    assert all(row["versions"] == ["1.2", "1.3"] for row in told["rows"])


def test_every_protocol_refuses_cleartext_behind_starttls(shared: Server) -> None:
    done = shared.run_cli("selftest", "starttls", "--json", "--config", str(shared.config))
    told = json.loads(done.stdout)
    assert {verdict["state"] for verdict in told} == {"refused"}
    assert {verdict["place"].split()[0] for verdict in told} == {"imap", "pop3", "submission", "lmtp"}
