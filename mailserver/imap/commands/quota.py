"""QUOTA (RFC 9208): the usage of the account and its limits. One quota root holds for all mailboxes.

The limits come from the configuration and the source of users, so SETQUOTA is not offered, and refused.
"""

from __future__ import annotations

from typing import Final

from mailserver.errors import MailError, NoSuchMailbox
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.quota_limits import update_quota
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.session.cost import ACCOUNT, CONSTANT, Cost
from mailserver.types import UNLIMITED, Quota, Usage

ROOT: Final = "User quota"
"""Name of the quota root: Dovecot's usual one."""
UNIT: Final = 1024
"""Octets of STORAGE's unit (RFC 9208 5.1)."""
_MOST_LIMITS: Final = 16


class NoSuchRoot(NoSuchMailbox):
    """There is no quota root of that name."""

    text = "no such quota root"


class SetQuotaRefused(MailError):
    """Limits are not changed by clients (RFC 5530 NOPERM)."""

    imap_code = "NOPERM"
    text = "limits are set by the administrator"


async def getquota(session: Session, command: Command) -> None:
    """RFC 9208 4.1.1."""
    reader = command.reader
    reader.read_sp()
    root = reader.read_astring()
    reader.read_end()
    if root != ROOT.encode("ascii"):
        raise NoSuchRoot
    await _write_quota(session, "INBOX")


async def getquotaroot(session: Session, command: Command) -> None:
    """RFC 9208 4.1.2. The mailbox need not exist."""
    reader = command.reader
    reader.read_sp()
    wire_name = reader.read_mailbox()
    reader.read_end()
    name = session.services.namespace.to_store(wire_name)
    root = writer.quoted(ROOT.encode("ascii"))
    session.untagged(b"QUOTAROOT %b %b" % (session.mailbox_octets(name), root))
    await _write_quota(session, name)


async def setquota(_session: Session, command: Command) -> None:
    """RFC 9208 4.1.3: parsed, and refused."""
    reader = command.reader
    reader.read_sp()
    reader.read_astring()
    reader.take(b" (")
    for _ in range(_MOST_LIMITS):
        if reader.skip(b")"):
            break
        reader.read_atom()
        reader.read_sp()
        reader.read_number(2**63 - 1)
        reader.skip(b" ")
    reader.read_end()
    raise SetQuotaRefused


async def _write_quota(session: Session, name: str) -> None:
    account = session.account
    assert account is not None
    await update_quota(session)
    usage = await account.reading(lambda _has_read: account.account.usage(name))
    session.untagged(b"QUOTA %b (%b)" % (writer.quoted(ROOT.encode("ascii")), resources(account.quota, usage)))


def resources(quota: Quota, usage: Usage) -> bytes:
    """Write usage and limit of each limited resource (RFC 9208 4.2.1). Fractions of a unit are rounded up."""
    rows = (
        ("STORAGE", -(-usage.storage // UNIT), None if quota.storage is None else -(-quota.storage // UNIT)),
        ("MESSAGE", usage.messages, quota.messages),
        ("MAILBOX", usage.mailboxes, quota.mailboxes),
    )
    limited = zip(rows, quota, strict=True)
    shown = [row for row, limit in limited if limit not in {None, UNLIMITED}]
    return " ".join(f"{name} {used} {limit}" for name, used, limit in shown).encode("ascii")


QUOTA = Capability("QUOTA", "RFC 9208", __name__, "quota")
RES_STORAGE = Capability("QUOTA=RES-STORAGE", "RFC 9208", __name__, "quota")
RES_MESSAGE = Capability("QUOTA=RES-MESSAGE", "RFC 9208", __name__, "quota")
RES_MAILBOX = Capability("QUOTA=RES-MAILBOX", "RFC 9208", __name__, "quota-full")

COMMANDS = (
    CommandSpec(
        "GETQUOTA",
        LOGGED_IN,
        getquota,
        capabilities=(QUOTA, RES_STORAGE, RES_MESSAGE, RES_MAILBOX),
        reference="RFC 9208",
        cost=Cost("mailboxes, once after the loss of the index", ACCOUNT),
    ),
    CommandSpec(
        "GETQUOTAROOT",
        LOGGED_IN,
        getquotaroot,
        capabilities=(QUOTA,),
        reference="RFC 9208",
        cost=Cost("mailboxes, once after the loss of the index", ACCOUNT),
    ),
    CommandSpec("SETQUOTA", LOGGED_IN, setquota, reference="RFC 9208", cost=CONSTANT),
)
