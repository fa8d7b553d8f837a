"""The limits of a line of a users file, as a real Dovecot 2.4 reads the same fields (tests/oracle/test_quota_fields.py)."""

from __future__ import annotations

import pytest

from mailserver.auth.schemes.passwd import parse_line
from mailserver.auth.schemes.quota_fields import quota_faults, quota_of
from mailserver.types import UNLIMITED, Quota


def entry(extra: str):
    return parse_line(f"anna@example.test:{{PLAIN}}secret::::::{extra}")


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("0", UNLIMITED),
        ("unlimited", UNLIMITED),
        ("10", 10),
        ("10b", 10),
        ("5k", 5 << 10),
        ("5KB", 5 << 10),
        ("5m", 5 << 20),
        ("10MiB", 10 << 20),
        ("3T", 3 << 40),
        ("999999999999999999T", UNLIMITED),
    ],
)
def test_octets(text: str, octets: int) -> None:
    assert quota_of(entry(f"userdb_quota_storage_size={text}")) == Quota(storage=octets)
    assert list(quota_faults(entry(f"userdb_quota_storage_size={text}"))) == []


def test_numbers() -> None:
    found = entry("userdb_quota_message_count=10 userdb_quota_mailbox_count=0")
    assert quota_of(found) == Quota(messages=10, mailboxes=UNLIMITED)
    assert quota_of(entry("nologin")) == Quota()


@pytest.mark.parametrize(
    "field",
    [
        "userdb_quota_storage_size=1.5G",
        "userdb_quota_storage_size=10%",
        "userdb_quota_storage_size=-1",
        "userdb_quota_storage_size=",
        "userdb_quota_message_count=10k",
        "userdb_quota_mailbox_count=-1",
        "userdb_quota_mailbox_count=\u0661",
    ],
)
def test_what_is_no_limit_is_reported_and_the_configuration_holds(field: str) -> None:
    assert quota_of(entry(field)) == Quota()
    [(place, reason)] = quota_faults(entry(field))
    assert place == field
    assert "the limit of the configuration holds" in reason
