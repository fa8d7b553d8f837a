"""LMTP (RFC 2033): final delivery, with a reply for each recipient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from mailserver.auth.interfaces import User
from mailserver.config.model import Lmtp
from mailserver.errors import LeadsElsewhere, MailError, OverQuota, StoreUnavailable
from mailserver.filing.concurrency import gather_limited
from mailserver.filing.local_copies import LocalCopies, check_copies
from mailserver.filing.trace import earlier_recipients
from mailserver.session.channel import Channel
from mailserver.smtp.address import Address
from mailserver.smtp.announced_size import check_announced_size
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.log_fields import list_of, message_id_of
from mailserver.smtp.received import protocol_name, received_field
from mailserver.smtp.recipient_lookups import RecipientLookUps
from mailserver.smtp.session import Services, Session
from mailserver.smtp.trace import check_trace
from mailserver.smtp.transaction import Transaction
from mailserver.smtp.wire import Reply, reply, reply_to


@frozen(kw_only=True)
class LmtpServices(Services):
    """The objects and settings that LMTP sessions share."""

    config: Lmtp


class LmtpSession(Session):
    """The session of a mail transfer agent. It does not log in: the listener is local, or configured on purpose."""

    banner = "LMTP"

    def __init__(self, channel: Channel, services: LmtpServices) -> None:
        super().__init__(channel, services)
        self.services = services

    @property
    def timeout(self) -> float:
        """See LineSession."""
        return self.services.config.timeout

    @property
    def max_recipients(self) -> int:
        """See Session."""
        return self.services.config.max_recipients

    @property
    def must_start_tls(self) -> bool:
        """See Session."""
        return self.channel.info.tls_required and self.channel.info.tls is None

    @property
    def must_log_in(self) -> bool:
        """See LineSession."""
        return False

    def require_login(self) -> None:
        """See Session: nobody logs in here."""

    async def begin(self, sender: Address | None, parameters: Mapping[str, object]) -> Transaction:
        """See Session. Every sender is accepted: the transfer agent has checked it."""
        return LmtpTransaction(self, sender, parameters)


class LmtpTransaction(Transaction):
    """One message; each recipient's copy succeeds or fails by itself."""

    def __init__(self, session: LmtpSession, sender: Address | None, parameters: Mapping[str, object]) -> None:
        super().__init__(sender, parameters)
        self._session = session
        services = session.services
        self._look_ups = RecipientLookUps(
            services.authenticator, services.config.detail_separator, services.postmaster, session.max_recipients
        )
        self._copies = 0
        self._recipients: list[tuple[Address, Sequence[tuple[User, str]]]] = []
        self._message_id = ""
        self._earlier: frozenset[str] = frozenset()
        """Recipients here that the message was delivered to before."""

    async def look_up(self, recipient: Address) -> Reply:
        """See Transaction."""
        most = self._session.max_recipients
        # Each recipient has one copy at least.
        check_copies(self._copies + 1, most)
        found = await self._look_ups.find(recipient)
        if found.elsewhere:
            raise LeadsElsewhere
        check_copies(self._copies + len(found.local), most)
        services = self._session.services
        await check_announced_size(self._session.channel, services, found.local, self.parameters.get("SIZE"))
        self._copies += len(found.local)
        self._recipients.append((recipient, found.local))
        return reply(250, "2.1.5", "recipient accepted")

    async def deliver(self, incoming: Incoming) -> Sequence[Reply]:
        """See Transaction: one reply for each recipient, in the order of RCPT (RFC 2033 4.2)."""
        session = self._session
        trusted = session.channel.info.results_trusted
        header = await check_trace(incoming, None if trusted else session.verifies_here)
        self._message_id = message_id_of(header)
        name = self._session.new_message_name()
        self._earlier = earlier_recipients(header, session.services.hostname)
        works = [self._deliver_to(recipient, ends, incoming, name) for recipient, ends in self._recipients]
        return await gather_limited(self._session.services.gather, works)

    def refuse(self, error: MailError) -> Sequence[Reply]:
        """See Transaction."""
        return [reply_to(error)] * len(self._recipients)

    async def publish(self) -> None:
        """See Transaction: all is visible before the replies."""

    async def _deliver_to(
        self, recipient: Address, ends: Sequence[tuple[User, str]], incoming: Incoming, name: str
    ) -> Reply:
        """Deliver to all users of a recipient, or to none: else the client would send again to those who have it."""
        channel, services = self._session.channel, self._session.services
        facts = self._facts(recipient, incoming, name)
        if len(ends) == 1:
            facts["user"] = ends[0][0].name
        else:
            facts["users"] = list_of([user.name for user, _detail in ends])
        copies = LocalCopies(channel, services.filing, str(self.sender or ""), self._earlier)
        try:
            fields = self._received(recipient, name)
            added = [await copies.add(user, detail, str(recipient), fields) for user, detail in ends]
            appended = await copies.file(incoming.content)
        except MailError as error:
            if isinstance(error, OverQuota) and len(ends) == 1:
                channel.log("quota-refused", user=ends[0][0].name, command="DATA")
            return self._failed(facts, error)
        except Exception:
            channel.bug(f"delivering to {recipient}")
            return reply_to(StoreUnavailable("internal error"))
        finally:
            await copies.close()
        if appended is not None:
            facts |= {"mailbox": added[0].mailboxes[0], "uid": appended.uids[0]}
        channel.log("delivery", **facts)
        return _delivered(recipient)

    def _facts(self, recipient: Address, incoming: Incoming, name: str) -> dict[str, object]:
        """What is logged of a delivery."""
        return {
            "sender": str(self.sender or ""),
            "recipient": str(recipient),
            "size": incoming.size,
            "message": name,
            "message_id": self._message_id,
        }

    def _failed(self, facts: dict[str, object], error: MailError) -> Reply:
        self._session.channel.log("delivery-failed", **facts, reason=error.reason)
        return reply_to(self._session.services.quotas.refusal(error))

    def _received(self, recipient: Address, name: str) -> bytes:
        session = self._session
        info = session.channel.info
        return received_field(
            info,
            hello=session.hello or "unknown",
            hostname=session.services.hostname,
            protocol=protocol_name(info, extended=True, authenticated=False, utf8=self.utf8),
            message=name,
            recipient=recipient,
            now=session.services.clock(),
        )


def _delivered(recipient: Address) -> Reply:
    # Replies are ASCII.
    return reply(250, "2.0.0", f"<{recipient}> delivered" if recipient.is_ascii else "delivered")
