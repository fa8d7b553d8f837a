"""The objects and settings that all IMAP sessions of a process share, and the interface of what a session sends by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from attrs import Factory, field, frozen

from mailserver.auth.interfaces import Authenticator
from mailserver.config.model import Cache, Imap, Limits, Mail
from mailserver.imap.argument_cache import ArgumentCache
from mailserver.imap.capabilities import Capability, declared
from mailserver.imap.command import Table, one_word_forms
from mailserver.imap.list_answers import LARGEST_LINES, ListAnswers, ListLines
from mailserver.imap.wire.framer import Line, LineRefused, LiteralAnnounced
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.sasl.registry import Mechanisms
from mailserver.session.quotas import UserQuotas
from mailserver.store.live import LiveAccounts


class Pushes(Protocol):
    """What a session sends by itself between two commands: `imap.notifications`."""

    async def next_event(self) -> Line | LiteralAnnounced | LineRefused | None:
        """Send changes as they come until the client's next command, which is returned; None once the session has ended.

        Raises: TimedOut, FramingLost, ConnectionLost.
        """

    async def report(self, *, idle: bool = False) -> float | None:
        """Send what is new; return the time at which there may be more, without a poke. `idle`: expunges may be sent.

        Raises: ConnectionLost, MailboxChanged.
        """

    async def pass_over(self, names: Collection[str]) -> None:
        """Do not report the changes of these names that the client itself has just made."""

    async def pass_over_annotations(self, name: str | None) -> None:
        """Do not report those of annotations of a mailbox, or with None of the account."""

    def end(self) -> None:
        """Send nothing more."""


@frozen
class Services:
    """The objects and settings that all sessions share."""

    authenticator: Authenticator
    accounts: LiveAccounts
    hostname: str
    mail: Mail
    mechanisms: Mechanisms
    """SASL mechanisms that the configuration allows."""
    quotas: UserQuotas = Factory(UserQuotas)
    config: Imap = Factory(Imap)
    limits: Limits = Factory(Limits)
    argument_cache: ArgumentCache = Factory(lambda: ArgumentCache(Cache().commands))
    list_answers: ListAnswers[bytes] = Factory(ListAnswers)
    list_lines: ListAnswers[ListLines] = Factory(lambda: ListAnswers(LARGEST_LINES))
    """Of the extended LIST."""
    table: Table = field(kw_only=True)
    """`commands.TABLE`."""
    one_word_forms: Mapping[bytes, str] = field(
        init=False, default=Factory(lambda self: one_word_forms(self.table), takes_self=True)
    )
    capabilities: tuple[Capability, ...] = field(
        init=False,
        default=Factory(lambda self: declared(spec.capabilities for spec in self.table.values()), takes_self=True),
    )
    namespace: Namespace = field(
        default=Factory(
            lambda self: Namespace.make(self.mail.separator, self.mail.prefix, slashes=bool(self.mail.escape)),
            takes_self=True,
        )
    )
