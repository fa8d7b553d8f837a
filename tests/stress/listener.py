"""The server of a stress: one user's mailbox behind a listener without TLS, open to many sessions."""

from __future__ import annotations

import imaplib
import os

from tests.server import Server

CLIENTS = int(os.environ.get("MAILSERVER_STRESS_CLIENTS", "8"))
SECONDS = float(os.environ.get("MAILSERVER_STRESS_SECONDS", "4"))
EXTRA = """
[[listener]]
protocol = "imap"
port = {a}
addresses = ["127.0.0.1"]
allow_cleartext = true

[limits]
sessions_per_user = 1000
unauthenticated_per_address = 1000
"""


def emptied(server: Server) -> tuple[str, str]:
    """Remove the demonstration's messages, which no client owns; user and password."""
    user, password = server.user_of("example.test")
    with imaplib.IMAP4("127.0.0.1", server.spare_ports[0], timeout=60) as client:
        client.login(user, password)
        client.select("INBOX")
        client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
        client.expunge()
    return user, password
