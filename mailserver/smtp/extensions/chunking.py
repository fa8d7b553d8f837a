"""CHUNKING (RFC 3030): BDAT, a message in counted chunks."""

from __future__ import annotations

import re

from mailserver.errors import MailError, PrivacyRequired, StoreUnavailable, TooBig
from mailserver.smtp.command import CommandSpec, Extension
from mailserver.smtp.commands.data import MESSAGE, begin_message, finish_message, require_recipients
from mailserver.smtp.incoming import Incoming
from mailserver.smtp.session import MAX_SWALLOWED, MAX_SWALLOWED_UNKNOWN, Session
from mailserver.smtp.wire import reply

_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)


async def bdat(session: Session, argument: bytes) -> None:
    """BDAT (RFC 3030 2): the chunk's octets are consumed whether or not it is accepted."""
    found = _CHUNK.fullmatch(argument)
    if found is None:
        # It is not known how many octets follow, and none of them may be run as a command.
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
        await finish_message(session, require_recipients(session), incoming)
    elif incoming.failure is not None:
        raise incoming.failure
    else:
        session.reply(reply(250, "2.0.0", f"{count} octets received"))


async def _open_chunk(session: Session, count: int) -> Incoming:
    """The message that the chunk belongs to. Raises: PrivacyRequired, WrongState."""
    if session.must_start_tls:
        raise PrivacyRequired
    transaction = require_recipients(session)
    incoming = transaction.incoming or begin_message(session, transaction)
    limit = session.common.mail.max_message_size
    if incoming.failure is None and incoming.size + count > limit:
        # The declared size is enough to know: nothing of it is kept.
        await incoming.fail(TooBig(f"messages are at most {limit} octets"))
    return incoming


EXTENSIONS = (
    Extension(
        "CHUNKING",
        "RFC 3030",
        # Before TLS, BDAT refuses by itself, once it has consumed its octets.
        commands=(CommandSpec(b"BDAT", bdat, "RFC 3030 2", before_tls=True, cost=MESSAGE),),
        defined_in=__name__,
    ),
)
