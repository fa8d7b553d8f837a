"""Sender identity of a submitted message: every address in From, Sender, Resent-From and Resent-Sender must belong to the
login (RFC 6409 6.1, 8.1).

The list of mailboxes is parsed strictly (RFC 5322 3.4, without groups and obsolete forms). A From that programs could
understand in two ways is refused: otherwise a mail program might display another sender than the one that was checked.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from mailserver.auth.interfaces import Authenticator, User
from mailserver.errors import BadMessage, SenderRefused
from mailserver.smtp.address import Address, parse_address
from mailserver.smtp.header import Field

MAX_FIELD = 16 * 1024
"""Octets of a From or Sender field, so that parsing it takes little of the reactor's time."""

MAX_RESENT: Final = 100
"""Resent-From and Resent-Sender fields of one message, so that reading them takes little of the reactor's time."""

RESENT: Final = frozenset(["resent-from", "resent-sender"])
"""Fields of a message that was resent (RFC 5322 3.6.6); there may be several of each."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)
      | (?P<quoted>"(?:[^"\\\x00-\x08\x0a-\x1f]|\\[\t -~\x80-\xff])*")
      | (?P<literal>\[[!-Z^-~]*\])
      | (?P<atom>[A-Za-z0-9!\#$%&'*+/=?^_`{|}~.\x80-\xff-]+)
      | (?P<special>[<>@,])""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"[^()\\\x00-\x08\x0a-\x1f]+|\\[\t -~]")
_REPORT = re.compile(r"multipart/report[ \t]*(?:;|\(|$)", re.IGNORECASE)

Owns = Callable[[Address], Awaitable[bool]]


def parse_mailboxes(body: str) -> Sequence[Address]:
    """The addresses of a From or Sender field, at least one. Raises: BadMessage."""
    if len(body) > MAX_FIELD:
        raise BadMessage(f"the From or Sender field is longer than {MAX_FIELD} octets")
    mailboxes: list[Address] = []
    current: list[tuple[str, str]] = []
    for kind, text in [*_tokens(body), ("special", ",")]:
        if (kind, text) == ("special", ","):
            mailboxes.append(_mailbox(current))
            current = []
        else:
            current.append((kind, text))
    return mailboxes


def _tokens(body: str) -> list[tuple[str, str]]:
    tokens = []
    at = 0
    while at < len(body):
        if body[at] == "(":
            at = _skip_comment(body, at)
            continue
        token = _TOKEN.match(body, at)
        if token is None or token.lastgroup is None:
            raise BadMessage("the From or Sender field cannot be read")
        if token.lastgroup != "space":
            tokens.append((token.lastgroup, token[0]))
        at = token.end()
    return tokens


def _skip_comment(body: str, at: int) -> int:
    depth = 0
    while at < len(body):
        if body[at] in "()":
            depth += 1 if body[at] == "(" else -1
            at += 1
            if not depth:
                return at
        elif text := _COMMENT.match(body, at):
            at = text.end()
        else:
            break
    raise BadMessage("the From or Sender field has a comment without end")


def _mailbox(tokens: list[tuple[str, str]]) -> Address:
    refusal = BadMessage("the From or Sender field has no readable address")
    if ("special", "<") in tokens:
        start = tokens.index(("special", "<"))
        if tokens[-1] != ("special", ">") or any(kind not in ("atom", "quoted") for kind, _ in tokens[:start]):
            raise refusal
        tokens = tokens[start + 1 : -1]
    if len(tokens) != 3 or tokens[1] != ("special", "@"):
        raise refusal
    (local_kind, local), _, (domain_kind, domain) = tokens
    if local_kind not in ("atom", "quoted") or domain_kind not in ("atom", "literal"):
        raise refusal
    try:
        address = parse_address(f"{local}@{domain}".encode("latin-1").decode("utf-8"))
    except UnicodeDecodeError:
        raise refusal from None
    if address is None:
        raise refusal
    return address


async def owns(authenticator: Authenticator, user: User, address: Address) -> bool:
    """May the user send as that address? Raises: AuthUnavailable."""
    return await authenticator.may_send_as(user, address.key)


async def check_header(fields: Sequence[Field], envelope: Address | None, owned: Owns) -> Sequence[Address]:
    """The authors; none without a From field. Raises: BadMessage, SenderRefused, AuthUnavailable."""
    froms = [field for field in fields if field.name == "from"]
    senders = [field for field in fields if field.name == "sender"]
    if len(froms) > 1 or len(senders) > 1:
        raise BadMessage("the message has more than one From or Sender field")
    if envelope is None and not _is_report(fields):
        raise SenderRefused("the empty sender address is for delivery and disposition reports only")
    authors = parse_mailboxes(froms[0].body) if froms else []
    for field in senders:
        sent_by = parse_mailboxes(field.body)
        if len(sent_by) != 1:
            raise BadMessage("the Sender field has more than one address")
        if not await owned(sent_by[0]):
            raise SenderRefused("the address in the Sender field does not belong to your login")
    if len(authors) > 1 and not senders:
        raise BadMessage("a From field with several addresses needs a Sender field")
    # Mail programs display the authors and hardly ever the Sender: an author list with others would speak for them.
    await _check_all("From", authors, owned)
    resent = [field for field in fields if field.name in RESENT]
    if len(resent) > MAX_RESENT:
        raise BadMessage(f"the message has more than {MAX_RESENT} Resent-From and Resent-Sender fields")
    for field in resent:
        await _check_all(field.name.title(), parse_mailboxes(field.body), owned)
    return authors


async def _check_all(name: str, addresses: Sequence[Address], owned: Owns) -> None:
    """Raises: SenderRefused, AuthUnavailable."""
    for address in {each.key: each for each in addresses}.values():
        if not await owned(address):
            which = "the address" if len(addresses) == 1 else "an address"
            raise SenderRefused(f"{which} in the {name} field does not belong to your login")


def _is_report(fields: Sequence[Field]) -> bool:
    types = [field.body for field in fields if field.name == "content-type"]
    return len(types) == 1 and _REPORT.match(types[0]) is not None
