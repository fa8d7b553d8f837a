"""The quota fields of a users file beside a real Dovecot: the same limits, by GETQUOTAROOT."""

from __future__ import annotations

import contextlib
import imaplib
import re

import pytest

from mailserver.auth.schemes.passwd import parse_line
from mailserver.auth.schemes.quota_fields import quota_of
from mailserver.imap.commands.quota import resources
from mailserver.types import Quota, Usage
from tests import dovecot

SIZES = ("0", "10", "10M", "10MB", "10MiB", "1.5G", "unlimited", "5k", "3T", "10b", "10%", "-1", "5m")
COUNTS = ("0", "10", "unlimited", "10k", "-1")
FIELDS = [
    *(f"userdb_quota_storage_size={text}" for text in SIZES),
    *(f"userdb_quota_message_count={text}" for text in COUNTS),
]
MORE = """
mail_plugins {
  quota = yes
}
protocol imap {
  mail_plugins {
    imap_quota = yes
  }
}
quota "User quota" {
}
"""


def shown(server: dovecot.Dovecot, user: str) -> str | None:
    """Dovecot's resources; None if it refuses the field."""
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    with contextlib.closing(client.sock):
        client.login(user, "secret")
        try:
            _status, (_root, [quota]) = client.getquotaroot("INBOX")
        except imaplib.IMAP4.error:
            return None
    found = re.search(rb"\((.*)\)", quota or b"()")
    assert found is not None
    return found[1].decode()


@pytest.mark.interop
def test_dovecot_has_the_same_limits() -> None:
    dovecot.need()
    lines = [f"u{number}@example.test:{{PLAIN}}secret::::::{field}\n" for number, field in enumerate(FIELDS)]
    with dovecot.away({}, protocols="imap", more=MORE) as server:
        (server.dir / "users").write_text("".join(lines))
        config = server.config.read_text()
        theirs = f"userdb passwd-file {{\n  passwd_file_path = {server.dir}/users\n}}\n"
        server.config.write_text(config.replace("userdb static {\n}\n", theirs))
        with server:
            for number, (field, line) in enumerate(zip(FIELDS, lines, strict=True)):
                limits = quota_of(parse_line(line))
                expected = shown(server, f"u{number}@example.test")
                if expected is None:
                    assert limits == Quota(), field
                else:
                    assert resources(limits, Usage(0, 0, 0)).decode() == expected, field
