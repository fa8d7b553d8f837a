"""Commands that submission and LMTP share (RFC 5321 4.1.1, RFC 3207, RFC 3030)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from mailserver.errors import (
    BadSyntax,
    ConnectionLost,
    LimitReached,
    MailError,
    PrivacyRequired,
    StoreUnavailable,
    TooBig,
    WrongState,
)
from mailserver.session.cost import CONSTANT, Cost
from mailserver.smtp.address import Command, UnknownParameter, is_auth_parameter, is_hello_name, parse_mail, parse_rcpt
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.session import MAX_SWALLOWED, MAX_SWALLOWED_UNKNOWN
from mailserver.smtp.spec import CommandSpec
from mailserver.smtp.wire import DataDecoder, reply

if TYPE_CHECKING:
    from mailserver.smtp.session import Session
    from mailserver.smtp.transaction import Transaction

_HELLO = re.compile(r"[!-~]{1,255}")
_SIZE = re.compile(r"[0-9]{1,20}")
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)


class TLSNotAvailable(MailError):
    """RFC 3207 4."""

    smtp_reply: ClassVar[tuple[int, str]] = (454, "4.7.0")
    text = "TLS is not available here"


async def say_hello(session: Session, argument: bytes, *, extended: bool) -> None:
    """EHLO, HELO or LHLO (RFC 5321 4.1.1.1, RFC 2033 4.1): also ends a transaction."""
    name = argument.decode("ascii", "replace").strip(" ")
    if not _HELLO.fullmatch(name):
        raise BadSyntax("a host name or an address literal is expected")
    await session.reset()
    # Phones and old programs say what is neither; it decides nothing, so they are served, and it is not repeated.
    session.hello, session.extended = name if is_hello_name(name) else "unknown", extended
    keywords = session.keywords() if extended else []
    session.reply(reply(250, None, session.hostname, *keywords))


async def starttls(session: Session, argument: bytes) -> None:
    """STARTTLS (RFC 3207). What was learnt before is forgotten; a byte behind the command ends the connection."""
    if argument:
        raise BadSyntax("STARTTLS takes no argument")
    info = session.channel.info
    if info.tls is not None:
        raise WrongState("TLS has been started already")
    if not info.starttls_offered:
        raise TLSNotAvailable
    if session.reader.pending:
        session.reply(reply(501, "5.5.2", "nothing may follow STARTTLS before the handshake"))
        session.channel.log("plaintext-behind-starttls")
        session.end()
        return
    await session.reset()
    session.reply(reply(220, "2.0.0", "begin TLS"))
    await session.channel.start_tls()
    session.hello, session.extended, session.user = None, False, None


def _check_parameters(session: Session, command: Command) -> None:
    """SIZE (RFC 1870), BODY (RFC 6152), AUTH (RFC 4954 5, taken and not used). Raises: MailError for any other."""
    for keyword, value in command.parameters.items():
        if not session.extended:
            raise UnknownParameter("parameters need EHLO")
        if keyword == "SIZE":
            if value is None or not _SIZE.fullmatch(value):
                raise BadSyntax("SIZE is a number of octets")
            if int(value) > session.common.mail.max_message_size:
                raise TooBig(f"messages are at most {session.common.mail.max_message_size} octets")
        elif keyword == "BODY":
            if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                raise UnknownParameter("BODY is 7BIT or 8BITMIME")
        elif keyword == "AUTH" and session.user is not None:
            if not is_auth_parameter(value):
                raise BadSyntax("AUTH is xtext or <>")
        else:
            raise UnknownParameter


async def mail(session: Session, argument: bytes) -> None:
    """MAIL (RFC 5321 4.1.1.2)."""
    command = parse_mail(argument)
    if session.hello is None:
        raise WrongState("say hello first")
    if session.transaction is not None:
        raise WrongState("a transaction is open: RSET ends it")
    session.require_login()
    _check_parameters(session, command)
    session.transaction = await session.begin(command)
    session.reply(reply(250, "2.1.0", "sender accepted"))


async def rcpt(session: Session, argument: bytes) -> None:
    """RCPT (RFC 5321 4.1.1.3)."""
    command = parse_rcpt(argument)
    transaction = session.transaction
    if transaction is None or transaction.incoming is not None:
        raise WrongState("MAIL must come first, RCPT before the data")
    if command.parameters:
        raise UnknownParameter
    if transaction.recipients >= session.max_recipients:
        raise LimitReached("too many recipients")
    assert command.address is not None
    session.reply(await transaction.add_recipient(command.address))


def _require_recipients(session: Session) -> Transaction:
    if session.transaction is None or not session.transaction.recipients:
        raise WrongState("MAIL and an accepted RCPT must come first")
    return session.transaction


async def data(session: Session, argument: bytes) -> None:
    """DATA (RFC 5321 4.1.1.4): read to CRLF . CRLF whatever becomes of the message."""
    if argument:
        raise BadSyntax("DATA takes no argument")
    transaction = _require_recipients(session)
    if transaction.incoming is not None:
        raise WrongState("the message has begun with BDAT")
    incoming = transaction.incoming = _new_incoming(session)
    session.reply(reply(354, None, "send the message, end it with a single dot"))
    session.expect_data()
    decoder = DataDecoder()
    received = 0
    while not decoder.done:
        piece = await session.read_data()
        received += len(piece)
        await incoming.write(decoder.receive_data(piece))
        if received > 2 * session.common.mail.max_message_size + MAX_SWALLOWED:
            session.cut(reply(552, "5.3.4", "the message is far too large, closing the connection"), "cut")
    session.reader.give_back(decoder.rest)
    session.receiving = False
    await _conclude(session, transaction, incoming)


async def bdat(session: Session, argument: bytes) -> None:
    """BDAT (RFC 3030 2): the chunk's octets are consumed whether or not it is accepted."""
    found = _CHUNK.fullmatch(argument)
    if found is None:
        # Nobody knows how many octets follow, and none of them may be run as a command.
        session.cut(reply(501, "5.5.4", "BDAT needs a number of octets, closing the connection"), "cut")
    count = int(found[1])
    limit = session.common.mail.max_message_size
    if count > (MAX_SWALLOWED_UNKNOWN if session.transaction is None else limit + MAX_SWALLOWED):
        session.cut(reply(552, "5.3.4", "the chunk is far too large, closing the connection"), "cut")
    incoming: Incoming | None = None
    refusal: MailError | None = None
    try:
        incoming = await _open_chunk(session, count)
    except MailError as error:
        refusal = error
    session.expect_data()
    left = count
    while left:
        piece = await session.read_data(left)
        left -= len(piece)
        if incoming is not None:
            await incoming.write(piece)
    session.receiving = False
    if incoming is None:
        raise refusal or StoreUnavailable
    if found[2]:
        await _conclude(session, _require_recipients(session), incoming)
    elif incoming.failure is not None:
        raise incoming.failure
    else:
        session.reply(reply(250, "2.0.0", f"{count} octets received"))


async def _open_chunk(session: Session, count: int) -> Incoming:
    """Where the chunk goes. Raises: PrivacyRequired, WrongState."""
    if session.must_start_tls:
        raise PrivacyRequired
    transaction = _require_recipients(session)
    incoming = transaction.incoming
    if incoming is None:
        incoming = transaction.incoming = _new_incoming(session)
    limit = session.common.mail.max_message_size
    if incoming.failure is None and incoming.size + count > limit:
        # The declared size is enough to know: nothing of it is kept.
        await incoming.fail(TooBig(f"messages are at most {limit} octets"))
    return incoming


def _new_incoming(session: Session) -> Incoming:
    return Incoming(session.common.spool, session.common.mail.max_message_size, session.channel.drain)


async def _conclude(session: Session, transaction: Transaction, incoming: Incoming) -> None:
    """The message is whole: deliver it, answer, end the transaction."""
    try:
        await incoming.finish()
        if incoming.failure is not None:
            raise incoming.failure  # noqa: TRY301 - answered like the failures of delivery
        replies = await transaction.deliver(incoming)
        session.message_accepted()
    except ConnectionLost:
        raise
    except MailError as error:
        session.channel.log("message-refused", sender=str(transaction.sender or ""), reason=error.reason)
        replies = transaction.refuse(error)
    except Exception:
        session.channel.bug("delivering a message")
        replies = transaction.refuse(StoreUnavailable("internal error"))
    for answer in replies:
        session.reply(answer)
    await transaction.publish()
    await session.reset()


async def rset(session: Session, argument: bytes) -> None:
    """RSET (RFC 5321 4.1.1.5)."""
    if argument:
        raise BadSyntax("RSET takes no argument")
    await session.reset()
    session.reply(reply(250, "2.0.0", "nothing is pending"))


async def noop(session: Session, argument: bytes) -> None:  # noqa: ARG001 - its argument means nothing
    """NOOP (RFC 5321 4.1.1.9)."""
    session.reply(reply(250, "2.0.0", "nothing done"))


async def vrfy(session: Session, argument: bytes) -> None:
    """VRFY (RFC 5321 3.5.3): tells nothing about who exists."""
    if not argument.strip():
        raise BadSyntax("VRFY needs an address")
    session.reply(reply(252, "2.5.2", "not verified: send the message, and it will be tried"))


async def help_(session: Session, argument: bytes) -> None:  # noqa: ARG001 - one text for all
    """HELP (RFC 5321 4.1.1.8)."""
    session.reply(reply(214, "2.0.0", " ".join(sorted(name.decode("ascii") for name in session.table))))


async def quit_(session: Session, argument: bytes) -> None:
    """QUIT (RFC 5321 4.1.1.10)."""
    if argument:
        raise BadSyntax("QUIT takes no argument")
    session.reply(reply(221, "2.0.0", "goodbye"))
    session.end()


_MESSAGE = Cost(
    "octets of the message times recipients of this server", "reactor (receiving), accounts' threads (writing)"
)

COMMANDS = (
    CommandSpec(b"STARTTLS", starttls, "RFC 3207 4", before_tls=True, cost=CONSTANT),
    CommandSpec(b"MAIL", mail, "RFC 5321 4.1.1.2", cost=CONSTANT),
    CommandSpec(b"RCPT", rcpt, "RFC 5321 4.1.1.3", cost=Cost("", "reactor; submission waits for the next hop, too")),
    CommandSpec(b"DATA", data, "RFC 5321 4.1.1.4", cost=_MESSAGE),
    # It refuses by itself, behind its octets.
    CommandSpec(b"BDAT", bdat, "RFC 3030 2", before_tls=True, cost=_MESSAGE),
    CommandSpec(b"RSET", rset, "RFC 5321 4.1.1.5", cost=CONSTANT),
    CommandSpec(b"NOOP", noop, "RFC 5321 4.1.1.9", before_tls=True, cost=CONSTANT),
    CommandSpec(b"VRFY", vrfy, "RFC 5321 4.1.1.6", cost=CONSTANT),
    CommandSpec(b"HELP", help_, "RFC 5321 4.1.1.8", cost=CONSTANT),
    CommandSpec(b"QUIT", quit_, "RFC 5321 4.1.1.10", before_tls=True, cost=CONSTANT),
)
