"""Tables [mail], [queue] and [auth]."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from attrs import Factory, field, frozen

from mailserver.config.kinds import Count, OptionalHostName, Seconds, Size
from mailserver.config.model.keys import description, setting


@frozen
class Queue:
    """[queue]"""

    directory: Path | None = setting(
        "Directory of the mail queue, which the service's user makes. When absent, mailserver-queue in [mail] root. So far the "
        "server keeps only decisions there: by them all users of an address have a message, or none, also if the server is "
        "killed while it delivers. To move it, stop the server and move the files, too.",
        default=None,
        example="/var/spool/mailserver-queue",
    )


@frozen
class Mail:
    """[mail]"""

    root: Path = setting("Directory of all mail.", example="/var/mail/domains")
    location: str = setting(
        "Maildir of an account: a template with the fields {root}, {user}, {local}, {domain}, {home}.",
        default="{root}/{domain}/{local}/Maildir",
    )
    separator: Literal["/", "."] = setting("Hierarchy separator that IMAP clients see: / or .", default="/")
    prefix: str = setting("Namespace prefix that IMAP clients see, such as INBOX.", default="")
    utf8_names: bool = setting("Store folder names on disk in UTF-8 instead of modified UTF-7.", default=False)
    escape: str = setting(
        "Escape character of folder names on disk, as Dovecot's mailbox_list_storage_escape_char. "
        'With it, names may contain ".".',
        default="",
        example="%",
    )
    special_use: dict[str, tuple[str, ...]] = setting(
        "Folder names for each special use (RFC 6154), one or an array. The first is created with a new account. The first "
        "that exists has the use; if none does, a common name in one of many languages.",
        default=Factory(lambda: {use: (use,) for use in ("Drafts", "Sent", "Junk", "Trash", "Archive")}),
    )
    postmaster: str = setting(
        "User that receives mail to <postmaster>, and to postmaster of each domain without such a user.",
        default="",
        example="anna@example.org",
    )
    search_index: bool = setting(
        "Index the text of mailboxes that are searched for text, so that later searches open few messages.",
        default=True,
    )
    expunge_history: Count = setting(
        "Expunged messages that each mailbox remembers, and at times up to twice as many. A client that resynchronizes after "
        "more (QRESYNC) gets the UIDs of all messages that are not there.",
        default=50_000,
    )
    max_message_size: Size = setting("Largest message accepted, octets; at least 65536.", default=64 * 1024 * 1024)


class BackendUse(NamedTuple):
    """An element of `backends`: a text NAME:ARGUMENT, or a table. The settings of time are of no use to file and directory."""

    use: str
    """NAME:ARGUMENT."""
    domains: tuple[str, ...] = ()
    """Domains whose names it is asked for; all, where it is empty. Lower case."""
    time: float = 5.0
    """Seconds that a call may take."""
    calls: int = 16
    """Calls that run at once."""
    cache: float = 0.0
    """Seconds for which a password that was right passes without a call."""

    @property
    def name(self) -> str:
        """The word before the colon."""
        return self.use.partition(":")[0]


def _uses(backends: Iterable[str | BackendUse]) -> tuple[BackendUse, ...]:
    return tuple(BackendUse(each) if isinstance(each, str) else each for each in backends)


@frozen
class Auth:
    """[auth]"""

    backends: tuple[BackendUse, ...] = field(
        converter=_uses,
        metadata=description(
            "Back ends in the order in which they are asked: NAME:ARGUMENT, or a table {use = NAME:ARGUMENT, domains, time, calls, cache} "
            "with its settings (docs/authentication.md).",
            example=["directory:/var/lib/mailserver-accounts/directory.db"],
            hidden=True,
        ),
    )
    default_domain: OptionalHostName = setting(
        "Domain for user names without one. It is tried after the name itself, and if neither SNI nor the listener's default has a domain.",
        default="",
        example="example.org",
    )
    master_separator: str = setting(
        "Character in a user name that divides it: with *, the name anna*admin is a login of admin as anna, where a delegate allows it "
        "(docs/authentication.md). When empty, names are not divided.",
        default="",
        example="*",
    )
    mechanisms: tuple[
        Literal[
            "EXTERNAL",
            "SCRAM-SHA-256-PLUS",
            "SCRAM-SHA-256",
            "SCRAM-SHA-1-PLUS",
            "SCRAM-SHA-1",
            "PLAIN",
            "LOGIN",
        ],
        ...,
    ] = setting(
        "SASL mechanisms; each is offered where it can succeed. `mailserver user` stores keys for these SCRAM mechanisms.",
        default=("EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"),
    )
    scram_protocols: tuple[Literal["imap", "pop3", "submission"], ...] = setting(
        "Protocols that offer SCRAM. For POP3 and submission no list with SCRAM works for both mutt and msmtp.",
        default=("imap",),
    )
    scram_for: Literal["all", "some"] = setting(
        "Offer SCRAM once all users have keys, or once some have. Some clients then try nothing else, and users without keys cannot log in.",
        default="all",
    )
    weak_schemes: bool = setting(
        "Accept passwords stored by MD5-CRYPT, which are fast to guess from a stolen file.",
        default=False,
    )
    renew_hashes: bool = setting(
        "Make a hash of the directory anew, after a login, if it is quicker to guess than those of `mailserver user`.",
        default=True,
    )
    revoke_exposed: Literal["app", "none"] = setting(
        "Passwords that are revoked by themselves if they came in clear text, before TLS: app passwords, or none.",
        default="app",
    )
    hash_processes: Count = setting("Processes that check password hashes.", default=2)
    hash_queue: Count = setting(
        "Password checks that may wait, in each of three classes (known users are the first). Further clients are asked to try again later.",
        default=64,
    )
    failure_delay: Seconds = setting(
        "Delay after the first failure of a user from a network, in seconds. Each further failure doubles it.",
        default=1.0,
    )
    failure_delay_max: Seconds = setting("Longest delay, seconds.", default=15.0)
