"""Master users beside a real Dovecot: how a name is divided, and who gets in as whom."""

from __future__ import annotations

import imaplib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.errors import MailError
from tests import dovecot
from tests.auth.test_delegation import ADMIN, ANNA, BEN, Site
from tests.live.client import eventually

MASTERS = """\
auth_master_user_separator = *
passdb masters {{
  driver = passwd-file
  passwd_file_path = {dir}/masters
  master = yes
  result_success = continue
}}
"""
NAMES = (
    (ANNA, f"of {ANNA}"),
    (f"{ANNA}*{ADMIN}", f"of {ADMIN}"),
    (f"{ANNA}*{ADMIN}", f"of {ANNA}"),
    (f"{ANNA}*{ADMIN}", "wrong"),
    (f"{ANNA}*{BEN}", f"of {BEN}"),
    (f"nobody@example.test*{ADMIN}", f"of {ADMIN}"),
    (f"{ANNA}*{ADMIN}*x", f"of {ADMIN}"),
    (f"{ANNA}*{BEN}*{ADMIN}", f"of {ADMIN}"),
    (f"{ANNA}*nobody@example.org", f"of {ADMIN}"),
)


@pytest.fixture(scope="module")
def theirs() -> Iterator[dovecot.Dovecot]:
    dovecot.need()
    with dovecot.away({ANNA: f"of {ANNA}", BEN: f"of {BEN}"}, protocols="imap") as server:
        (server.dir / "masters").write_text(f"{ADMIN}:{{PLAIN}}of {ADMIN}::::::\n")
        server.config.write_text(server.config.read_text() + MASTERS.format(dir=server.dir))
        with server:
            yield server


def logins(theirs: dovecot.Dovecot) -> list[str]:
    """The users of its log, in the order of their logins."""
    return re.findall(r"Logged in: user=<([^>]*)>", theirs.log)


def test_the_same_names_get_in_as_the_same_users(theirs: dovecot.Dovecot, tmp_path: Path) -> None:
    site = Site(tmp_path / "directory.db")
    site.allow("example.test")
    ours, dovecots = {}, {}
    for name, password in NAMES:
        try:
            ours[name, password] = site.login(name, password).name
        except MailError:
            ours[name, password] = ""
        before = len(logins(theirs))
        client = imaplib.IMAP4("127.0.0.1", theirs.ports["imap"])
        try:
            client.login(name, password)
            # Dovecot writes the line after its answer.
            eventually(lambda before=before: len(logins(theirs)) > before)
            dovecots[name, password] = logins(theirs)[-1]
        except imaplib.IMAP4.error:
            dovecots[name, password] = ""
        finally:
            client.shutdown()
    assert ours == dovecots
    assert sum(map(bool, ours.values())) == 2
