"""Quotas of a live server: its workers, its next reading of the users file, and the administrator's command beside it."""

from __future__ import annotations

import imaplib
import json
import smtplib
import ssl
import urllib.request
from collections.abc import Iterator

import pytest

from tests.live.client import eventually
from tests.live.conftest import no_bug
from tests.server import Server

FULL, LIMITED = "full@example.test", "limited@example.test"
LINES = f"""\
{FULL}:{{PLAIN}}secret::::::userdb_quota_message_count=5
{LIMITED}:{{PLAIN}}secret
"""
MESSAGE = "From: a@example.net\r\nSubject: x\r\n\r\ntext\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        tmp_path_factory.mktemp("quota"), append='\n[quota]\nstorage = "1M"\nwhen_full = "permanent"\n', workers=2
    )
    with open(server.dir / "users", "a") as file:
        file.write(LINES)
    with server:
        yield server
    no_bug(server.log)


def deliver(server: Server, user: str) -> int:
    """The reply's code to a message by LMTP."""
    with smtplib.LMTP("127.0.0.1", server.port("lmtp")) as client:
        try:
            client.sendmail("a@example.net", [user], MESSAGE)
        except smtplib.SMTPDataError as error:
            return error.smtp_code
        except smtplib.SMTPRecipientsRefused as error:
            return next(iter(error.recipients.values()))[0]
        return 250


def imap(server: Server, user: str) -> imaplib.IMAP4:
    context = ssl.create_default_context(cafile=str(server.ca))
    context.check_hostname = False
    client = imaplib.IMAP4_SSL("127.0.0.1", server.port("imaps"), ssl_context=context)
    client.login(user, "secret")
    return client


def test_a_full_account_refuses_mail_and_its_user_is_warned_once(server: Server) -> None:
    assert [deliver(server, FULL) for _ in range(3)] == [250] * 3
    client = imap(server, FULL)
    assert client.getquota('"User quota"')[1] == [b'"User quota" (STORAGE 1 1024 MESSAGE 3 5)']
    assert deliver(server, FULL) == 250
    # It has reached 80 %: one mail more, which is delivered beyond any limit.
    eventually(lambda: client.select("INBOX")[1] == [b"5"])
    for _ in range(2):
        assert deliver(server, FULL) == 552
    eventually(lambda: client.select("INBOX")[1] == [b"6"])
    assert client.search(None, "FROM", "postmaster", "SUBJECT", '"80 % full"')[1] == [b"5"]
    assert client.search(None, "FROM", "postmaster", "SUBJECT", '"is full"')[1] == [b"6"]
    status, text = client.append("INBOX", "", "", MESSAGE.encode())
    assert status == "NO"
    assert b"[OVERQUOTA]" in text[0]
    assert client.copy("1", "INBOX")[0] == "NO"
    client.store("1:*", "+FLAGS", "\\Deleted")
    client.expunge()
    assert deliver(server, FULL) == 250
    client.logout()
    metrics = urllib.request.urlopen(f"http://127.0.0.1:{server.port('http')}/metrics", timeout=30).read().decode()
    assert 'mailserver_quota_refusals_total{protocol="lmtp",tls="none"} 2.0' in metrics


def test_a_changed_limit_and_the_command_beside_the_server(server: Server) -> None:
    assert deliver(server, LIMITED) == 250
    client = imap(server, LIMITED)
    users = server.dir / "users"
    users.write_text(
        users.read_text().replace(
            f"{LIMITED}:{{PLAIN}}secret\n", f"{LIMITED}:{{PLAIN}}secret::::::userdb_quota_message_count=1\n"
        )
    )
    eventually(lambda: b"MESSAGE 1 1" in client.getquota('"User quota"')[1][0])
    assert client.append("INBOX", "", "", MESSAGE.encode())[0] == "NO"
    # The refusal is worth a warning.
    eventually(lambda: b"MESSAGE 2 1" in client.getquota('"User quota"')[1][0])
    [row] = json.loads(server.run_cli("quota", "list", LIMITED, "--json", "--config", str(server.config)).stdout)
    assert (row["messages"], row["messages_limit"], row["storage_limit"]) == (2, 1, 1 << 20)
    done = server.run_cli("quota", "recalculate", LIMITED, "--config", str(server.config))
    assert "all numbers were right" in done.stdout
    # Each worker reads the changed file within a second of its own.
    eventually(lambda: deliver(server, LIMITED) == 552)
    client.logout()
