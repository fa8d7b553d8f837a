"""CREATE, DELETE, RENAME, SUBSCRIBE and UNSUBSCRIBE (RFC 3501 6.3.3 to 6.3.7, RFC 6154 3)."""

from __future__ import annotations

from mailserver.errors import BadMailboxName, BadSyntax, MailboxExists, MailError, NoSuchMailbox
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.list_extended import parents
from mailserver.imap.object_ids import OBJECTID, mailbox_id_code
from mailserver.imap.quota_limits import update_quota
from mailserver.imap.session import Session
from mailserver.imap.wire.mailbox_names import require_net_unicode
from mailserver.session.cost import ACCOUNT, Cost
from mailserver.store.live import LiveAccount
from mailserver.types import MailboxId

SPECIAL_USES = {f"\\{name}".upper(): f"\\{name}" for name in ("Archive", "Drafts", "Junk", "Sent", "Trash")}
"""Attributes that a new mailbox may get. \\All and \\Flagged would be views of other mailboxes, which do not exist here."""


class UnsupportedUse(MailError):
    """RFC 6154 6: the special use cannot be given."""

    imap_code = "USEATTR"
    text = "mailboxes of that special use cannot be created here"


async def create(session: Session, command: Command) -> str:
    """RFC 3501 6.3.3; `(USE (\\Sent))` is RFC 6154 3, MAILBOXID RFC 8474 4.1.

    A separator at the end promises children and is dropped.
    """
    reader = command.reader
    reader.read_sp()
    wire_name = reader.read_mailbox()
    uses: list[str] = []
    if reader.skip(b" "):
        reader.take(b"(")
        if reader.read_word() != "USE":
            raise BadSyntax("unknown CREATE parameter")  # RFC 4466 2.2
        reader.take(b" (")
        while not reader.skip(b")"):
            if uses:
                reader.read_sp()
            reader.take(b"\\")
            uses.append("\\" + reader.read_word())
        reader.take(b")")
    reader.read_end()
    name = _new_name(session, wire_name)
    if not SPECIAL_USES.keys() >= set(uses):
        raise UnsupportedUse
    account = _account(session)
    await update_quota(session)
    made = await account.run(lambda: account.account.create(name, frozenset(SPECIAL_USES[use] for use in uses)))
    session.channel.log("create", user=session.user, mailbox=name)
    await _names_changed(session, name, *parents([name], "/"))
    return f"{mailbox_id_code(made)} CREATE completed"


async def delete(session: Session, command: Command) -> None:
    """RFC 3501 6.3.4. A session that deletes its selected mailbox has none selected afterwards."""
    name = _one_name(session, command)
    account = _account(session)

    def find_and_delete() -> MailboxId | None:
        gone = _find(session, name)
        account.account.delete(name)
        return gone

    gone = await account.run(find_and_delete)
    session.channel.log("delete", user=session.user, mailbox=name)
    await _names_changed(session, name, *parents([name], "/"))
    if gone is None:
        return
    if session.selected is not None and session.selected.live.id == gone:
        session.close_mailbox()
        session.untagged(b"OK [CLOSED] the selected mailbox is deleted")
    account.poke(gone)
    account.forget(gone)


async def rename(session: Session, command: Command) -> None:
    """RFC 3501 6.3.5. Renaming INBOX moves its messages to the new name."""
    reader = command.reader
    reader.read_sp()
    old_name = reader.read_mailbox()
    reader.read_sp()
    new_name = reader.read_mailbox()
    reader.read_end()
    old, new = session.services.namespace.to_store(old_name), _new_name(session, new_name)
    account = _account(session)
    await update_quota(session)

    def find_and_rename() -> MailboxId | None:
        renamed = _find(session, old)
        account.account.rename(old, new)
        return renamed

    renamed = await account.run(find_and_rename)
    session.channel.log("rename", user=session.user, mailbox=old, to=new)
    await _names_changed(session, old, new, *parents([new], "/"))
    if renamed is not None:
        account.poke(renamed)


async def subscribe(session: Session, command: Command) -> None:
    """RFC 3501 6.3.6: only names that exist now; they stay subscribed when they are deleted later."""
    name = _one_name(session, command)
    account = _account(session)

    def check_and_subscribe() -> None:
        # The list of all names is long, and only a name that is a mere parent needs it.
        if _find(session, name) is None and all(info.name != name for info in account.account.mailboxes()):
            raise NoSuchMailbox
        account.account.set_subscribed(name, subscribed=True)

    await account.run(check_and_subscribe)
    await _names_changed(session, name)


async def unsubscribe(session: Session, command: Command) -> None:
    """RFC 3501 6.3.7."""
    name = _one_name(session, command)
    account = _account(session)
    await account.run(lambda: account.account.set_subscribed(name, subscribed=False))
    await _names_changed(session, name)


async def _names_changed(session: Session, *names: str) -> None:
    """Notify the sessions that follow the account; this one needs no report of its own change (RFC 5465 5)."""
    _account(session).poke_names()
    await session.pass_over_names(*names)


def _account(session: Session) -> LiveAccount:
    assert session.account is not None
    return session.account


def _find(session: Session, name: str) -> MailboxId | None:
    """The id of a mailbox, None for a name that is only a parent or does not exist. In the account's thread."""
    try:
        return _account(session).account.mailbox(name).id
    except NoSuchMailbox:
        return None


def _one_name(session: Session, command: Command) -> str:
    reader = command.reader
    reader.read_sp()
    name = reader.read_mailbox()
    reader.read_end()
    return session.services.namespace.to_store(name)


def _new_name(session: Session, wire_name: str) -> str:
    """The store's name of a mailbox to create. Raises: BadMailboxName, MailboxExists for INBOX."""
    namespace = session.services.namespace
    name = namespace.to_store(wire_name.removesuffix(namespace.separator))
    if name == "INBOX":
        raise MailboxExists
    if session.utf8:
        require_net_unicode(name)
    if not all(name.split("/")):
        raise BadMailboxName("a level of the mailbox name is empty")
    return name


CREATE_SPECIAL_USE = Capability("CREATE-SPECIAL-USE", "RFC 6154", __name__, "create-special-use")

COMMANDS = (
    CommandSpec(
        "CREATE",
        LOGGED_IN,
        create,
        capabilities=(CREATE_SPECIAL_USE, OBJECTID),
        reference="RFC 3501, RFC 6154, RFC 8474",
        cost=Cost("mailboxes of the account", ACCOUNT),
    ),
    CommandSpec("DELETE", LOGGED_IN, delete, cost=Cost("mailboxes of the account", ACCOUNT)),
    CommandSpec("RENAME", LOGGED_IN, rename, cost=Cost("mailboxes of the account; messages, for INBOX", ACCOUNT)),
    CommandSpec("SUBSCRIBE", LOGGED_IN, subscribe, cost=Cost("mailboxes of the account, subscriptions", ACCOUNT)),
    CommandSpec("UNSUBSCRIBE", LOGGED_IN, unsubscribe, cost=Cost("subscriptions", ACCOUNT)),
)
