"""NOTIFY (RFC 5465): the client chooses the changes that it is sent without asking, of all its mailboxes."""

from __future__ import annotations

from mailserver.errors import BadSyntax
from mailserver.imap import updates
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.commands.fetch import read_items
from mailserver.imap.new_messages import enable_condstore
from mailserver.imap.notifications import Notifications, end_notifications, silence_selected
from mailserver.imap.notify_request import read_notify
from mailserver.imap.session import Session
from mailserver.session.cost import BOTH, Cost


async def notify(session: Session, command: Command) -> None:
    """RFC 5465 3.1. What has accumulated in the selected mailbox is sent whatever the client wants from now on."""
    if not session.without_hidden([NOTIFY.token]):
        raise BadSyntax("NOTIFY is not offered here")  # its work would go on for as long as the client is connected
    request = read_notify(command.reader, session.services.namespace, read_items)
    if request is None:
        end_notifications(session)
        silence_selected(session.selected_events)
        return
    notifications = Notifications(session, request)
    await notifications.begin()
    end_notifications(session)
    session.pushes = notifications
    group = request.selected
    if group is not None:
        enable_condstore(session, group.items)
    events = session.selected_events
    notifications.events_of_selected(events)
    if session.selected is not None:
        wanted = events.messages, events.flags
        events.messages = events.flags = True
        try:
            await updates.sync(session.channel, session.selected, allow_expunge=True)
        finally:
            events.messages, events.flags = wanted
    if request.status:
        await notifications.write_statuses(await notifications.followed())


NOTIFY = Capability("NOTIFY", "RFC 5465", __name__, "notify")

COMMANDS = (
    CommandSpec(
        "NOTIFY",
        LOGGED_IN,
        notify,
        capabilities=(NOTIFY,),
        reference="RFC 5465",
        cost=Cost("mailboxes of the account; then those that change", BOTH),
    ),
)
"""What it costs later is in `imap.notifications` and `store.live.account_changes`."""
