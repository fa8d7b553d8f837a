"""Message submission (RFC 6409): users log in and send under their own addresses, to users here and by the next hop.

A message is accepted only once it is stored or relayed. With recipients of both kinds the local copies are prepared, so
that they survive a crash and cannot fail any more, before the hop gets the message's final dot. The client gets the hop's
reply. After a positive one the copies are published, otherwise dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from attrs import field, frozen

from mailserver.auth.interfaces import User
from mailserver.config.model import Submission
from mailserver.errors import AuthUnavailable, MailError, NoSuchUser, OverQuota, RelayRefused, SenderRefused, WrongState
from mailserver.filing.local_copies import LocalCopies, check_copies
from mailserver.message.limits import MAX_HEADER
from mailserver.sasl.registry import Mechanisms
from mailserver.session.channel import Channel
from mailserver.smtp.address import Address, address_of
from mailserver.smtp.announced_size import check_announced_size
from mailserver.smtp.header import Field, parse_header
from mailserver.smtp.hop import HopSession, HopTransaction, NextHop
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.log_fields import LONGEST_ID, bounded, list_of, reply_text
from mailserver.smtp.received import format_date, new_message_id, protocol_name, received_field
from mailserver.smtp.recipient_lookups import RecipientLookUps
from mailserver.smtp.sender import RESENT, check_header, owns
from mailserver.smtp.session import Services, Session
from mailserver.smtp.signing import MessageSigner, Unsigned
from mailserver.smtp.trace import check_trace
from mailserver.smtp.transaction import NO_PARAMETERS, LookupFailed, Transaction
from mailserver.smtp.wire import Reply, reply, reply_to

FIELDS = frozenset(["from", "sender", "date", "message-id", "content-type"]) | RESENT
"""The fields of a submitted message's header that are examined."""


class LoginRequired(WrongState):
    """RFC 4954 6."""

    smtp_reply: ClassVar[tuple[int, str]] = (530, "5.7.0")
    text = "log in first"


@frozen(kw_only=True)
class SubmissionServices(Services):
    """The objects and settings that submission sessions share."""

    config: Submission
    mechanisms: Mechanisms
    """SASL mechanisms that the configuration allows, in the order of EHLO."""
    next_hop: NextHop | None = None
    signer: MessageSigner = field(factory=MessageSigner)
    """Signs the messages of domains that have keys."""
    detail_separator: str = "+"
    """The separator of details in local recipients; the configuration of LMTP has it."""


class SubmissionSession(Session):
    """The session of a mail program."""

    banner = "ESMTP"

    def __init__(self, channel: Channel, services: SubmissionServices) -> None:
        super().__init__(channel, services)
        self.services = services
        self.login_failures = 0
        self.kept_hop: HopSession | None = None
        """The session with the next hop that carried the last message."""

    async def leave(self) -> None:
        """See LineSession."""
        try:
            await super().leave()
        finally:
            if self.kept_hop is not None:
                self.kept_hop.close()

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
        return not self.channel.info.login_allowed

    @property
    def must_log_in(self) -> bool:
        """See LineSession."""
        return self.user is None

    def require_login(self) -> None:
        """See Session."""
        if self.user is None:
            raise LoginRequired

    async def begin(self, sender: Address | None, parameters: Mapping[str, object]) -> Transaction:
        """See Session. The sender must belong to the login; the null sender is judged by the message (RFC 8098)."""
        assert self.user is not None
        if sender is not None and not await self.owned(sender):
            raise SenderRefused
        return SubmissionTransaction(self, self.user, sender, parameters)

    async def owned(self, address: Address) -> bool:
        """Does the address belong to the login? Raises: LookupFailed."""
        assert self.user is not None
        try:
            return await owns(self.services.authenticator, self.user, address)
        except AuthUnavailable as error:
            raise LookupFailed from error


class SubmissionTransaction(Transaction):
    """One message: all its recipients get it, or none does and the reply is negative."""

    def __init__(
        self, session: SubmissionSession, user: User, sender: Address | None, parameters: Mapping[str, object]
    ) -> None:
        super().__init__(sender, parameters)
        self._session = session
        self._user = user
        self.digest = session.services.signer.new_digest()
        size = parameters.get("SIZE")
        self._declared_size = size if isinstance(size, int) else None
        services = session.services
        self._look_ups = RecipientLookUps(
            services.authenticator, services.detail_separator, services.postmaster, session.max_recipients
        )
        self._local: dict[tuple[str, str], tuple[Address, User]] = {}
        self._elsewhere: set[str] = set()
        """Targets of aliases that the hop has taken."""
        self._hop: HopTransaction | None = None
        self._hop_failure: MailError | None = None
        self._copies = LocalCopies(session.channel, services.filing, str(sender or ""))
        self._refusal: Reply | None = None
        """A refusal of a recipient that can only be kept by refusing the message."""
        self._accepted = False
        self._accepted_recipients: list[Address] = []
        self._message_id = ""
        self._hop_reply: str | None = None

    async def add_recipient(self, recipient: Address, parameters: Mapping[str, object] = NO_PARAMETERS) -> Reply:
        """See Transaction."""
        answer = await super().add_recipient(recipient, parameters)
        if answer.code // 100 == 2:
            self._accepted_recipients.append(recipient)
        return answer

    async def look_up(self, recipient: Address) -> Reply:
        """See Transaction."""
        services = self._session.services
        try:
            if recipient.domain and not await services.authenticator.serves_domain(recipient.domain):
                return await self._look_up_remote(recipient)
        except AuthUnavailable as error:
            raise LookupFailed from error
        found = await self._look_ups.find(recipient)
        copies = self._local.keys() | {(user.name, detail) for user, detail in found.local}
        elsewhere = self._elsewhere | set(found.elsewhere)
        check_copies(len(copies) + len(elsewhere), self._session.max_recipients)
        if not found.elsewhere:
            await check_announced_size(self._session.channel, services, found.local, self._declared_size)
        # The hop has those of another alias already.
        new = [address_of(each) for each in found.elsewhere if each not in self._elsewhere]
        answer = await self._look_up_elsewhere(new)
        if answer.code // 100 == 2:
            self._elsewhere = elsewhere
            for user, detail in found.local:
                # Two addresses of one mailbox get one copy.
                self._local.setdefault((user.name, detail), (recipient, user))
        return answer

    async def _look_up_elsewhere(self, targets: Sequence[Address | None]) -> Reply:
        """Announce the targets of an alias that are not here. A hop that refuses one of several refuses the message."""
        for at, target in enumerate(targets):
            if target is None:
                raise NoSuchUser
            try:
                answer = await self._look_up_remote(target)
            except MailError as error:
                answer = reply_to(error)
            if answer.code // 100 != 2:
                if at:
                    # The hop cannot be asked to forget the others.
                    self._refusal = answer
                return answer
        return reply(250, "2.1.5", "recipient accepted")

    async def _look_up_remote(self, recipient: Address) -> Reply:
        services = self._session.services
        if services.next_hop is None:
            raise RelayRefused
        if self._hop_failure is not None:
            raise self._hop_failure
        if self._hop is None:
            kept, self._session.kept_hop = self._session.kept_hop, None
            try:
                self._hop, answer = await HopTransaction.begin(
                    services.next_hop,
                    services.hostname,
                    self.sender,
                    recipient,
                    size=self._declared_size,
                    utf8=self.utf8,
                    kept=kept,
                )
            except MailError as error:
                # It is tried once in a transaction.
                self._hop_failure = error
                self._session.channel.log("relay-failed", relay=services.next_hop.name, reason=error.reason)
                raise
            return answer
        return await self._hop.add_recipient(recipient)

    async def deliver(self, incoming: Incoming) -> Sequence[Reply]:
        """See Transaction."""
        if self._refusal is not None:
            return [self._refusal]
        fields = parse_header(await incoming.read(0, MAX_HEADER + 2), FIELDS)
        authors = await check_header(fields, self.sender, self._session.owned)
        header = await check_trace(incoming, self._session.verifies_here, submitted=True)
        name = self._session.new_message_name()
        prefix = self._prefix(fields, name, has_from=bool(authors))
        prefix = self._signatures(authors, prefix + header, incoming) + prefix
        hop = self._hop if self._hop is not None and self._hop.accepted else None
        answer = reply(250, "2.0.0", f"accepted as {name}")
        if hop is None and len(self._local) == 1:
            await self._add_copies(prefix)
            await self._copies.file(incoming.content)
        else:
            if hop is not None and (refusal := await hop.send(prefix, incoming)) is not None:
                self._hop_reply = reply_text(refusal)
                self._log("submission-refused", name, incoming, reason=" ".join(refusal.lines))
                return [refusal]
            await self._add_copies(prefix)
            await self._copies.prepare(incoming.content)
            await self._copies.decide()
            if hop is not None:
                answer = await hop.finish()
                self._hop_reply = reply_text(answer)
                if answer.code // 100 != 2:
                    self._log("submission-refused", name, incoming, reason=" ".join(answer.lines))
                    return [answer]
            self._accepted = True
            if hop is None:
                await self.publish()
        self._log("submission", name, incoming)
        return [answer]

    def refuse(self, error: MailError) -> Sequence[Reply]:
        """See Transaction."""
        if isinstance(error, OverQuota):
            self._session.channel.log("quota-refused", user=self._user.name, command="DATA")
        return super().refuse(self._session.services.quotas.refusal(error))

    async def publish(self) -> None:
        """See Transaction: the prepared copies become visible."""
        if not self._accepted:
            return
        await self._copies.publish()

    async def close(self) -> None:
        """See Transaction."""
        await super().close()
        await self._copies.close()
        hop, self._hop = self._hop, None
        if hop is not None:
            self._session.kept_hop = hop.close()

    async def _add_copies(self, fields: bytes) -> None:
        for (_name, detail), (recipient, user) in self._local.items():
            await self._copies.add(user, detail, str(recipient), fields)

    def _prefix(self, fields: Sequence[Field], name: str, *, has_from: bool) -> bytes:
        """Received, and the fields that the message lacks (RFC 6409 8)."""
        session, services = self._session, self._session.services
        info, now = session.channel.info, services.clock()
        present = {each.name for each in fields}
        only = next(iter(self._local.values()))[0] if self.recipients == 1 and self._local else None
        added = received_field(
            info,
            hello=session.hello or "unknown",
            hostname=services.hostname,
            protocol=protocol_name(info, extended=session.extended, authenticated=True, utf8=self.utf8),
            message=name,
            recipient=only,
            now=now,
            hide_client=services.config.hide_client,
        )
        if not has_from:
            added += f"From: <{self._author}>\r\n".encode("utf-8" if self.utf8 else "ascii", "replace")
        if "date" not in present:
            added += f"Date: {format_date(now)}\r\n".encode("ascii")
        given = next((each.body for each in fields if each.name == "message-id"), None)
        self._message_id = new_message_id(services.hostname, now) if given is None else bounded(given, LONGEST_ID)
        if given is None:
            added += f"Message-ID: {self._message_id}\r\n".encode("ascii")
        return added

    @property
    def _author(self) -> str:
        """The author of a message without a From field."""
        user = self._user.name
        return user if "@" in user else str(self.sender or f"{user}@{self._session.services.hostname}")

    def _signatures(self, authors: Sequence[Address], header: bytes, incoming: Incoming) -> bytes:
        """The DKIM-Signature fields of a message; none if it is left unsigned."""
        session = self._session
        body_hash = incoming.body_hash()
        if body_hash is None:
            return b""
        domains = [author.domain for author in authors] or [self._author.rpartition("@")[2]]
        signer, now = session.services.signer, session.services.clock()
        try:
            return signer.sign(signer.choose(domains, now), header, body_hash, now)
        except Unsigned as unsigned:
            if unsigned.log:
                session.channel.log("dkim-unsigned", domain=unsigned.domain, reason=str(unsigned))
            return b""

    def _log(self, event: str, name: str, incoming: Incoming, **more: object) -> None:
        services, hop = self._session.services, self._hop
        relay: dict[str, object] = {}
        if hop is not None and hop.accepted and services.next_hop:
            relay["relay"] = services.next_hop.name
        if self._hop_reply:
            relay["reply"] = self._hop_reply
        self._session.channel.log(
            event,
            user=self._user.name,
            sender=str(self.sender or ""),
            recipients=self.recipients,
            to=list_of(self._accepted_recipients),
            size=incoming.size,
            message=name,
            message_id=self._message_id,
            **relay,
            **more,
        )
