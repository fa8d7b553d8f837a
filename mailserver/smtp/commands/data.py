"""DATA: a message in lines (RFC 5321 4.1.1.4), and what follows the last octet of any message."""

from __future__ import annotations

from typing import Final

from mailserver.errors import ConnectionLost, MailError, StoreUnavailable, WrongState
from mailserver.session.cost import Cost
from mailserver.smtp.command import CommandSpec, no_argument
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.session import MAX_SWALLOWED, Session
from mailserver.smtp.transaction import Transaction
from mailserver.smtp.wire import DataDecoder, reply

MESSAGE: Final = Cost(
    "octets of the message times recipients of this server", "reactor (receiving), accounts' threads (writing)"
)


async def data(session: Session, argument: bytes) -> None:
    """DATA (RFC 5321 4.1.1.4): read to CRLF . CRLF, also of a message that is refused."""
    no_argument("DATA", argument)
    transaction = require_recipients(session)
    if transaction.incoming is not None:
        raise WrongState("the message has begun with BDAT")
    incoming = begin_message(session, transaction)
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
    await finish_message(session, transaction, incoming)


def require_recipients(session: Session) -> Transaction:
    """The transaction, which has a recipient. Raises: WrongState."""
    if session.transaction is None or not session.transaction.recipients:
        raise WrongState("MAIL and an accepted RCPT must come first")
    return session.transaction


def begin_message(session: Session, transaction: Transaction) -> Incoming:
    """The message of a transaction, empty as yet."""
    common = session.common
    incoming = transaction.incoming = Incoming(
        common.spool, common.mail.max_message_size, session.channel.drain, transaction.digest
    )
    return incoming


async def finish_message(session: Session, transaction: Transaction, incoming: Incoming) -> None:
    """Deliver a message that is whole, write the replies, end the transaction."""
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


COMMANDS = (CommandSpec(b"DATA", data, "RFC 5321 4.1.1.4", cost=MESSAGE),)
