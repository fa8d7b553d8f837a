"""MAIL, RCPT and RSET: the envelope of a message (RFC 5321 4.1.1)."""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.errors import LimitReached, WrongState
from mailserver.session.cost import CONSTANT, Cost
from mailserver.smtp.address import NotASCII, UnknownParameter, parse_mail, parse_rcpt
from mailserver.smtp.command import CommandSpec, Parameter, no_argument
from mailserver.smtp.session import Session
from mailserver.smtp.transaction import NO_PARAMETERS
from mailserver.smtp.wire import reply


async def mail(session: Session, argument: bytes) -> None:
    """MAIL (RFC 5321 4.1.1.2)."""
    path = parse_mail(argument)
    if session.hello is None:
        raise WrongState("say hello first")
    if session.transaction is not None:
        raise WrongState("a transaction is open: RSET ends it")
    session.require_login()
    parameters = _parse_parameters(session, path.parameters, session.table.mail)
    if not path.is_ascii and "SMTPUTF8" not in parameters:
        raise NotASCII
    session.transaction = await session.begin(path.address, parameters)
    session.reply(reply(250, "2.1.0", "sender accepted"))


async def rcpt(session: Session, argument: bytes) -> None:
    """RCPT (RFC 5321 4.1.1.3)."""
    path = parse_rcpt(argument)
    transaction = session.transaction
    if transaction is None or transaction.incoming is not None:
        raise WrongState("MAIL must come first, RCPT before the data")
    parameters = _parse_parameters(session, path.parameters, session.table.rcpt)
    if not path.is_ascii and not transaction.utf8:
        raise NotASCII
    if transaction.recipients >= session.max_recipients:
        raise LimitReached("too many recipients")
    assert path.address is not None
    session.reply(await transaction.add_recipient(path.address, parameters))


def _parse_parameters(
    session: Session, given: Mapping[str, str | None], known: Mapping[str, Parameter]
) -> Mapping[str, object]:
    """The meaning of each parameter, by keyword. Raises: UnknownParameter, and what its row raises."""
    if not given:
        return NO_PARAMETERS
    parsed = {}
    for keyword, value in given.items():
        if not session.extended:
            raise UnknownParameter("parameters need EHLO")
        parameter = known.get(keyword)
        if parameter is None:
            raise UnknownParameter
        parsed[keyword] = parameter.parse(session, value)
    return parsed


async def rset(session: Session, argument: bytes) -> None:
    """RSET (RFC 5321 4.1.1.5)."""
    no_argument("RSET", argument)
    await session.reset()
    session.reply(reply(250, "2.0.0", "nothing is pending"))


COMMANDS = (
    CommandSpec(b"MAIL", mail, "RFC 5321 4.1.1.2", cost=CONSTANT),
    CommandSpec(
        b"RCPT",
        rcpt,
        "RFC 5321 4.1.1.3",
        cost=Cost("", "reactor; account's thread for a quota; submission waits for the next hop, too"),
    ),
    CommandSpec(b"RSET", rset, "RFC 5321 4.1.1.5", cost=CONSTANT),
)
