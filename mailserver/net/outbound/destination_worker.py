"""A worker of a destination: takes its messages, one after another, and sends them over one connection at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol

from attrs import frozen

from mailserver.errors import MailError, RelayRefused
from mailserver.net.log.events import log_warning
from mailserver.net.outbound.active_destination import ActiveDestination
from mailserver.net.outbound.hop_pool import MOST_MESSAGES, HopPool, PooledSession
from mailserver.net.outbound.mx_hosts import MXHosts
from mailserver.net.outbound.place import PoolKey
from mailserver.net.outbound.result_writer import Results
from mailserver.net.outbound.spooled_message import SpooledMessage
from mailserver.net.outbound.transaction_semaphore import Permit
from mailserver.queue.interfaces import Try
from mailserver.queue.model import Message, Recipient
from mailserver.queue.outcome import Outcome, refused_here
from mailserver.queue.routing import Routes, Way
from mailserver.smtp.address import Address, address_of, parse_address
from mailserver.smtp.onward import OnwardRecipient
from mailserver.smtp.onward_transaction import MOST_RECIPIENTS, OutgoingMessage
from mailserver.smtp.relay import CLOSING

MOST_SESSIONS: Final = 2
"""Hosts of a domain that may refuse in their greeting or later in one attempt, beside those that cannot be connected."""
MESSAGES_A_TURN: Final = 20
"""Messages after which a connection passes to another destination that waits for the same hop."""
PAUSE_AFTER_CUTS: Final = 300.0


class Surroundings(Protocol):
    """What workers share."""

    routes: Routes
    hosts: MXHosts
    pool: HopPool

    async def ready(self) -> bool:
        """Wait until results can be recorded. False: no transaction may begin any more."""

    async def record(self, destination: ActiveDestination, results: Results) -> None:
        """Wait until results are recorded."""

    def open(self, message: Message) -> int:
        """See `queue.interfaces.Work`."""

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call in a thread."""

    def is_wanted(self, key: PoolKey) -> bool:
        """Does another destination wait for a connection to this hop?"""

    def wait_for_room(self, destination: ActiveDestination, key: PoolKey) -> None:
        """End the destination until the hop has room for another connection."""


@frozen
class Group:
    """Recipients of a message that one transaction can have."""

    way: Way
    sender: str
    recipients: list[Recipient]


class NoRoom(Exception):
    """The hop has as many connections as it may have."""


class DestinationWorker:
    """`run` is its life. It holds one permit and one connection at most."""

    def __init__(self, around: Surroundings, destination: ActiveDestination, permit: Permit) -> None:
        self._around = around
        self._destination = destination
        self._permit = permit
        self._pooled: PooledSession | None = None
        self._messages = 0
        self.present: Try | None = None
        """The message that it is about."""
        self.is_sending = False
        """A transaction is under way, or its results are being recorded."""

    async def run(self) -> None:
        """Send the destination's messages until there are none, or others have to wait for it."""
        destination = self._destination
        try:
            while not self._is_turn_over() and await self._around.ready():
                self.present = await destination.next()
                if self.present is None:
                    break
                await self._permit.begin()
                if not await self._around.ready():
                    break
                try:
                    await self._carry(self.present)
                except NoRoom:
                    break
                self._messages += 1
                self.present = None
        finally:
            self._release(drop=self.is_sending)
            self._permit.release()

    def _is_turn_over(self) -> bool:
        """Shall others have the connection?"""
        if self._destination.has_ended:
            return True
        pooled = self._pooled
        if pooled is None or self._messages < MESSAGES_A_TURN or not self._around.is_wanted(pooled.place.key):
            return False
        if self._destination.workers > 1:
            self._destination.use_fewer()
        else:
            self._around.wait_for_room(self._destination, pooled.place.key)
        return True

    async def _carry(self, each: Try) -> None:
        groups, refused = self._groups(each)
        if refused:
            await self._around.record(self._destination, refused)
        if not groups:
            return
        file = SpooledMessage(each.message, self._around.in_thread)
        try:
            try:
                await file.open(self._around.open)
            except (MailError, OSError) as error:
                outcome = _unreadable(each.message, error)
                results = [(one, outcome) for group in groups for one in group.recipients]
                await self._around.record(self._destination, results)
                return
            for group in groups:
                await self._send_group(each.message, group, file)
        finally:
            file.close()

    def _groups(self, each: Try) -> tuple[list[Group], list[tuple[Recipient, Outcome]]]:
        """The transactions of a message, and the recipients that have no way."""
        groups: dict[tuple[Way, str], Group] = {}
        refused: list[tuple[Recipient, Outcome]] = []
        for recipient in each.recipients:
            sender = each.message.envelope.sender if recipient.target.sender is None else recipient.target.sender
            way = self._way(sender, recipient)
            if isinstance(way, Outcome):
                refused.append((recipient, way))
            else:
                groups.setdefault((way, sender), Group(way, sender, [])).recipients.append(recipient)
        return list(groups.values()), refused

    def _way(self, sender: str, recipient: Recipient) -> Way | Outcome:
        if recipient.target.kind == "here":
            return refused_here("4.3.0", "mail for mailboxes here is not delivered by this process")
        to, by = _address(recipient.target.address), _address(sender) if sender else None
        if to is None:
            return refused_here("5.1.3", "that is no recipient address")
        if sender and by is None:
            return refused_here("5.1.7", "that is no sender address")
        try:
            return self._around.routes.find("" if by is None else by.domain, to.domain)
        except RelayRefused as error:
            # It had a way when it was accepted: the administrator may give it one again.
            return refused_here("4.4.4", error.reason)

    async def _send_group(self, message: Message, group: Group, file: SpooledMessage) -> None:
        """Send to all recipients of a group, in as many transactions as they need."""
        waiting = group.recipients
        while waiting:
            if not await self._around.ready():
                return
            batch, waiting = waiting[:MOST_RECIPIENTS], waiting[MOST_RECIPIENTS:]
            outcomes = await self._send(message, group, batch, file)
            results = list(zip(batch, outcomes, strict=True))
            if self._pooled is not None and self._pooled.session.is_usable:
                # The hop has taken others, and takes these in its next transaction (RFC 5321 4.5.3.1.10).
                waiting = [each for each, outcome in results if outcome.result == "again"] + waiting
                results = [each for each in results if each[1].result != "again"]
            self._judge(outcomes)
            if outcomes[0].result == "hop_failed":
                # The destination waits as a whole: what was not tried stays as it is.
                waiting = []
            await self._around.record(self._destination, results)
            self.is_sending = False

    def _judge(self, outcomes: Sequence[Outcome]) -> None:
        """Draw conclusions about the hop."""
        destination = self._destination
        if outcomes[0].result == "hop_failed":
            destination.has_ended = True
        elif any(each.code for each in outcomes):
            destination.hop_replied()
        elif outcomes[0].result == "deferred" and outcomes[0].stage is not None and destination.hop_was_silent():
            destination.has_ended = True
            destination.pause = PAUSE_AFTER_CUTS
            log_warning("queue-hop-silent", destination=destination.name, reason=outcomes[0].text)

    async def _send(
        self, message: Message, group: Group, batch: Sequence[Recipient], file: SpooledMessage
    ) -> list[Outcome]:
        envelope = message.envelope

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in file.pieces():
                yield piece
            await self._permit.end_message()

        outgoing = OutgoingMessage(
            sender=_address(group.sender) if group.sender else None,
            size=message.size,
            pieces=pieces,
            eight_bit=envelope.eight_bit,
            utf8=envelope.utf8,
            ret=envelope.ret,
            envid=envelope.envid,
        )
        recipients = [_onward(each) for each in batch]
        while True:
            failure = await self._connect(group.way)
            if failure is not None:
                return [failure] * len(batch)
            pooled = self._pooled
            assert pooled is not None
            self.is_sending = True
            was_used = pooled.has_rested or pooled.session.messages > 0
            try:
                outcomes = await pooled.session.send(outgoing, recipients)
            except (MailError, OSError) as error:
                self._release(drop=True)
                return [_unreadable(message, error)] * len(batch)
            if was_used and _had_gone(pooled, outcomes):
                # The hop has ended the connection between two messages: it has nothing of this one.
                self._release(drop=True)
                self.is_sending = False
                continue
            return outcomes

    async def _connect(self, way: Way) -> Outcome | None:
        """Have a session for the way. Return the failure if there is none. Raises: NoRoom."""
        places = await self._around.hosts.find(way)
        if isinstance(places, Outcome):
            return places
        pool, pooled = self._around.pool, self._pooled
        if pooled is not None:
            keys = [place.key for place in places]
            session = pooled.session
            if pooled.place.key in keys and session.is_usable and session.messages < MOST_MESSAGES:
                return None
            self._release()
        failure: Outcome | None = None
        full: PoolKey | None = None
        refusals = 0
        for place in places:
            # Another connection of this destination comes after the first of one that waits.
            is_second = self._destination.workers > 1
            if not pool.has_room(place.key) or (is_second and self._around.is_wanted(place.key)):
                full = full or place.key
                continue
            taken = await pool.take(place)
            if isinstance(taken, PooledSession):
                self._pooled = taken
                self._destination.hop_greeted()
                return None
            failure = taken
            refusals += taken.stage != "connect"
            if taken.result == "failed" or refusals >= MOST_SESSIONS:
                return taken
        if full is not None:
            self._wait_for_room(full)
        assert failure is not None
        return failure

    def _wait_for_room(self, key: PoolKey) -> None:
        """Raises: NoRoom."""
        assert self.present is not None
        destination = self._destination
        if destination.workers > 1:
            # Those of its recipients that have no result yet are taken again by another worker.
            destination.forget({each.id for each in self.present.recipients})
            destination.has_more()
            destination.use_fewer()
        else:
            self._around.wait_for_room(destination, key)
        raise NoRoom

    def _release(self, *, drop: bool = False) -> None:
        pooled, self._pooled = self._pooled, None
        if pooled is None:
            return
        if drop:
            self._around.pool.drop(pooled)
        else:
            self._around.pool.give_back(pooled)


def _address(text: str) -> Address | None:
    return parse_address(text) or address_of(text)


def _onward(recipient: Recipient) -> OnwardRecipient:
    address = _address(recipient.target.address)
    assert address is not None
    return OnwardRecipient(address, recipient.target.notify, recipient.target.orcpt)


def _had_gone(pooled: PooledSession, outcomes: Sequence[Outcome]) -> bool:
    return pooled.session.failure is not None and all(
        each.stage in {"connect", "mail"} and each.code in {0, CLOSING} for each in outcomes
    )


def _unreadable(message: Message, error: Exception) -> Outcome:
    reason = error.reason if isinstance(error, MailError) else str(error)
    log_warning("queue-message-unreadable", message=message.name, reason=reason)
    return refused_here("4.3.0", "the message cannot be read now")
