"""The record of a refused login in plain sentences, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from attrs import frozen

from mailserver.explain.record import Record
from mailserver.explain.trace import Rule


@frozen
class Facts:
    """What is known today beside the record. It may have changed since."""

    password_changed: str = ""
    """When the user's password was last changed; empty: unknown."""
    near: Sequence[str] = ()
    """Users with a similar name."""
    expired: Sequence[str] = ()
    """Labels of the user's app passwords that had expired."""
    revoked: Sequence[str] = ()
    """Labels of those that had been revoked not long before."""


def story(record: Record, facts: Facts = Facts()) -> list[str]:
    """The sentences, in the order of time; those about what to do are last."""
    lines = [_beginning(record), *_connection(record), *_name(record)]
    lines += _calls(record)
    if record.waited >= _NOTICED:
        lines.append(
            f"It waited {record.waited:.1f} s for its turn: other attempts for this user or from this network were before it, or"
            " had failed."
        )
    if record.refused:
        rule = rule_of(record)
        lines.append(f"It was refused for {_NAMES[rule]}: {record.reason}.")
        if record.delay >= _NOTICED:
            lines.append(f"The answer was held back for {record.delay:.1f} s, as after each failure.")
        lines.append(advice(record, facts))
    return lines


def trial_story(record: Record) -> list[str]:
    """The sentences about a trial, before its result: the name, the account and the back ends."""
    return [*_name(record), *_calls(record)]


def advice(record: Record, facts: Facts = Facts()) -> str:
    """What to do about a refusal."""
    return f"What to do: {_ADVICE[rule_of(record)](record, facts)}"


def _calls(record: Record) -> list[str]:
    if not record.calls:
        return []
    asked = ", ".join(f"{each.backend} ({each.question}: {each.answer}, {each.seconds:.3f} s)" for each in record.calls)
    return [f"Back ends asked: {asked}."]


def rule_of(record: Record) -> Rule:
    """The rule of a record; OTHER for one of a newer release."""
    try:
        return Rule(record.rule)
    except ValueError:
        return Rule.OTHER


def moment(at: float) -> str:
    """2026-12-02 19:30:05 UTC"""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


_NOTICED: Final = 0.5
"""Seconds of waiting that are worth a sentence."""


def _beginning(record: Record) -> str:
    ended = f"was refused (ref {record.ref})" if record.refused else "was let in"
    return f"{moment(record.at)}: a login over {record.protocol or 'an unknown protocol'} {ended}, session {record.session}."


def _connection(record: Record) -> list[str]:
    client = f"The client at {record.peer}" if record.peer else "A client without an address"
    tls = f"with {record.tls}" if record.tls else "without TLS"
    asked = f", asked for the host {record.server_name}" if record.server_name else ", named no host"
    served = f", and was served as {record.host}" if record.host else ""
    if not record.tls:
        asked = served = ""
    by = f" It used {record.method}." if record.method else ""
    return [f"{client} was connected {tls}{asked}{served}.{by}"]


def _name(record: Record) -> list[str]:
    lines = []
    if record.typed.startswith("("):
        lines.append(
            f"It sent a name of {record.typed[1:-1]} that is neither an address nor a user. The name is not kept, as it may be a"
            " password."
        )
    elif record.typed:
        lines.append(f"It sent the name {record.typed}.")
    completed = [name for name in record.names if name != record.typed]
    if completed and record.typed and "@" not in record.typed:
        lines.append(f"A name without a domain was looked for as it is, and as {' or '.join(completed)}.")
    if record.delegate:
        does = "asked to log in" if record.refused else "logged in"
        lines.append(f"It is the account {record.delegate}, which {does} as {record.user} (a delegate).")
    elif record.user and record.user != record.typed:
        lines.append(f"It is the account {record.user}.")
    return lines


def _wrong(record: Record, facts: Facts) -> str:
    user = record.owner or record.typed
    changed = (
        f" The password was last changed on {facts.password_changed}; a program set up before has the old one."
        if facts.password_changed
        else ""
    )
    if facts.expired:
        changed += (
            f" App passwords that had expired: {', '.join(facts.expired)}. If the program has one of them, make a new one by"
            f" `mailserver user app-password add {user}`."
        )
    if facts.revoked:
        changed += f" App passwords that had been revoked: {', '.join(facts.revoked)}. A program that has one of them still tries it."
    return (
        f"compare the password in the user's program with the one that the user knows.{changed} If nobody knows it,"
        f" `mailserver user password {user}` sets another."
    )


def _unknown(record: Record, facts: Facts) -> str:
    if facts.near:
        return f"correct the user name in the program. Users with similar names: {', '.join(facts.near)}."
    if record.typed.startswith("("):
        return "correct the user name in the program: it is the whole address, as anna@example.test."
    return f"correct the user name in the program, or add the user: `mailserver user add {record.typed}`."


def _unavailable(_record: Record, _facts: Facts) -> str:
    return (
        "nothing at the client: the password was neither right nor wrong. Look for the back end in the log and in `mailserver"
        " status`; logins work again by themselves when it answers."
    )


def _fixed(text: str) -> Callable[[Record, Facts], str]:
    return lambda record, _facts: text.replace("USER", record.owner or record.typed or "USER")


_NAMES: Final = {
    Rule.OTHER: "another reason",
    Rule.UNKNOWN_USER: "an unknown user",
    Rule.BAD_NAME: "a name that no user can have",
    Rule.EMPTY: "an empty password",
    Rule.WRONG: "a wrong password",
    Rule.DISABLED: "a disabled user",
    Rule.UNSET: "a user without a password",
    Rule.UNUSABLE: "a stored password that cannot be used",
    Rule.WEAK_SCHEME: "a weak scheme of the stored password",
    Rule.NO_KEYS: "missing SCRAM keys",
    Rule.CHANGED: "a change at the same time",
    Rule.NETWORK: "the client's network",
    Rule.PROTOCOL: "the protocol",
    Rule.EXPIRED: "an expired app password",
    Rule.CERTIFICATE: "the client's certificate",
    Rule.AUTHORIZATION: "another user's identity",
    Rule.EXCHANGE: "a broken exchange",
    Rule.UNAVAILABLE: "a back end that did not answer",
    Rule.TOO_MANY: "too many attempts at once",
    Rule.LIMIT: "a limit",
    Rule.BANNED: "a ban of its address",
    Rule.CANCELLED: "a proof that did not come",
    Rule.MAILBOX: "mail that could not be opened",
}

_ADVICE: Final[dict[Rule, Callable[[Record, Facts], str]]] = {
    Rule.OTHER: _fixed("look for the session in the log."),
    Rule.UNKNOWN_USER: _unknown,
    Rule.BAD_NAME: _fixed(
        "correct the user name in the program: spaces, colons, slashes and control characters are in no name."
    ),
    Rule.EMPTY: _fixed("enter the password in the program; it sent an empty one."),
    Rule.WRONG: _wrong,
    Rule.DISABLED: _fixed("`mailserver user enable USER`, if the user may log in again."),
    Rule.UNSET: _fixed("`mailserver user password USER` sets a password."),
    Rule.UNUSABLE: _fixed("`mailserver user password USER` sets a password in a form that the server knows."),
    Rule.WEAK_SCHEME: _fixed(
        "`mailserver user password USER` sets a password by a strong scheme; `weak_schemes = true` in [auth] accepts the old one."
    ),
    Rule.NO_KEYS: _fixed("`mailserver user password USER` makes the keys; or choose PLAIN inside TLS in the program."),
    Rule.CHANGED: _fixed("try again."),
    Rule.NETWORK: _fixed(
        "nothing, if the user may not log in from there. Otherwise add the network: `mailserver user limit USER --help`, or"
        " allow_nets in a users file."
    ),
    Rule.PROTOCOL: _fixed(
        "nothing, if that password is not meant for this protocol. An app password keeps its protocols: `mailserver user"
        " app-password add USER` makes another one. Those of the user and of its main password are in `mailserver user show USER`,"
        " and `mailserver user limit USER --help` says how to change them."
    ),
    Rule.EXPIRED: _fixed("make a new app password, and enter it in the program."),
    Rule.CERTIFICATE: _fixed(
        "install the user's client certificate in the program, and connect to a host name of the user's domain; see client"
        " certificates in docs/tls.md."
    ),
    Rule.AUTHORIZATION: _fixed(
        "leave the identity (authorization name) in the program empty, if the user is to log in as itself. To let it log in as"
        " another user, `mailserver delegate add` that; `mailserver delegate list` shows what has expired."
    ),
    Rule.EXCHANGE: _fixed(
        "look at the reason above: the program broke the rules of the mechanism. Another mechanism may work."
    ),
    Rule.UNAVAILABLE: _unavailable,
    Rule.TOO_MANY: _fixed(
        "wait a minute. Somebody tries many passwords for this user or from this network; `mailserver explain --user USER` lists"
        " the last refusals."
    ),
    Rule.LIMIT: _fixed(
        "close other sessions of the user, which `mailserver who` lists; or raise the limit in [limits]."
    ),
    Rule.BANNED: _fixed(
        "`mailserver bans list` shows the reason and the end of the ban, `mailserver bans remove` lifts it."
    ),
    Rule.CANCELLED: _fixed(
        "nothing, if the program then logged in by another mechanism. Otherwise look at its settings: it began SCRAM and gave up, as"
        " some do that are asked for a password at that moment. Many of these are somebody who tries names."
    ),
    Rule.MAILBOX: _fixed("look at the reason above: the password was right, and the mail could not be opened."),
}
