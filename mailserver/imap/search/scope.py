"""A search in a mailbox that is not selected, but open for the search alone (RFC 7377), and the keys that depend on the mailbox."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from mailserver.session.channel import Channel
from mailserver.store.live import LiveMailbox
from mailserver.store.query import InUIDs, Query, leaves, substituted
from mailserver.store.view import View


@frozen
class UnselectedScope:
    """A mailbox that is not selected. Its view never changes."""

    channel: Channel
    searched: LiveMailbox
    view: View


@frozen
class PerMailbox(InUIDs):
    """A key whose UIDs depend on the mailbox: sequence numbers, `*`, \\Recent. `resolve_for` replaces it."""

    find: Callable[[View], InUIDs]


def depends_on_mailbox(query: Query) -> bool:
    """Tell whether there is such a key."""
    return any(isinstance(key, PerMailbox) for key in leaves(query))


def resolve_for(query: Query, view: View) -> Query:
    """The same query for one mailbox. Keys are nested in each other `keys.MAX_DEPTH` times at most."""
    return substituted(query, lambda key: key.find(view) if isinstance(key, PerMailbox) else key)
