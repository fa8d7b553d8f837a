"""Logins of real connections come to be known, from workers and from one process."""

from __future__ import annotations

import imaplib
import json
import poplib
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from mailserver.net.admin.ledger import GATHER
from mailserver.net.connection.client_log import GATHERING_TIME
from tests.server import Server


def known(server: Server, *arguments: str) -> list[dict[str, Any]]:
    return list(json.loads(server.run_cli("clients", "--json", *arguments, "--config", str(server.config)).stdout))


def switched_off(server: Server, context: ssl.SSLContext) -> None:
    """Nothing more is kept, what is there stays, until it is switched on again."""
    before, settings = known(server), server.config.read_text()
    server.config.write_text(settings + "\n[ledger]\nenabled = false\n")
    server.hang_up()
    user, password = server.user_of("example.org")
    with imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=context) as imap:
        imap.login(user, password)
    time.sleep(GATHERING_TIME + GATHER + 1)
    assert known(server) == before
    server.config.write_text(settings)
    server.hang_up()


@pytest.mark.parametrize("workers", [0, 2])
def test_who_has_logged_in_and_how(tmp_path: Path, workers: int) -> None:
    with Server(tmp_path / "server", workers=workers) as server:
        user, password = server.user_of("example.test")
        context = ssl.create_default_context(cafile=str(server.ca))
        imap = imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=context)
        imap.login(user, password)
        imap.xatom("ID", '("name" "Test program" "version" "1.5" "os" "secret")')
        pop3 = poplib.POP3("localhost", server.port("pop3"))
        pop3.stls(context)
        pop3.user(user)
        pop3.pass_(password)
        end = time.monotonic() + 60
        while len(known(server)) < 2 and time.monotonic() < end:
            time.sleep(0.5)
        found = known(server, user)
        if workers:
            switched_off(server, context)
        impacts = [
            (shut_out, server.run_cli("tls", "impact", *change, "--config", str(server.config), check=False))
            for *change, shut_out in (
                ("--close", str(server.port("pop3")), ["pop3"]),
                ("--min-version", "1.3", []),
                ("--drop-name", "localhost", ["imaps", "pop3"]),
                ("--drop-mechanism", "USER", ["pop3"]),
                ("--drop-mechanism", "LOGIN", ["imaps"]),
            )
        ]
        pop3.close()
        imap.shutdown()
        late, password = server.user_of("example.org")
        with imaplib.IMAP4_SSL("localhost", server.port("imaps"), ssl_context=context) as imap:
            imap.login(late, password)
        assert server.stop() == 0
        assert [each["protocol"] for each in known(server, late)] == ["imaps"], "the last seconds before the end count"
    by_protocol = {each["protocol"]: each for each in found}
    assert by_protocol.keys() == {"imaps", "pop3"}
    ours = by_protocol["imaps"]
    assert (ours["program"], ours["port"], ours["tls"]) == ("Test program 1.5", server.port("imaps"), "implicit")
    assert (ours["version"], ours["server_name"], ours["mechanism"]) == ("TLSv1.3", "localhost", "LOGIN")
    assert (by_protocol["pop3"]["tls"], by_protocol["pop3"]["mechanism"]) == ("STARTTLS", "USER")
    assert "secret" not in json.dumps(found)
    for shut_out, told in impacts:
        rows = [line.split() for line in told.stdout.splitlines() if line.startswith("shut out ")]
        assert [row[2] for row in rows] == [user] * len(shut_out)
        assert sorted(protocol for protocol in by_protocol if any(protocol in row for row in rows)) == shut_out
        assert told.returncode == bool(shut_out)
        assert f"{int(bool(shut_out))} of 1 users" in told.stdout
