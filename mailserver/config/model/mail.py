"""Where mail is kept, and who may log in."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import Factory, frozen

from mailserver.config.kinds import Count, OptionalHostName, Seconds, Size
from mailserver.config.model.keys import setting


@frozen
class Mail:
    """[mail]"""

    root: Path = setting("Directory of all mail.", example="/var/mail/domains")
    location: str = setting(
        "Maildir of an account: a template of {root}, {user}, {local}, {domain}, {home}.",
        default="{root}/{domain}/{local}/Maildir",
    )
    separator: Literal["/", "."] = setting("Hierarchy separator that IMAP clients see: / or .", default="/")
    prefix: str = setting("Namespace prefix that IMAP clients see, such as INBOX.", default="")
    utf8_names: bool = setting("Folder names on disk are UTF-8 instead of modified UTF-7.", default=False)
    escape: str = setting(
        "Character that begins an escape in folder names on disk: mailbox_list_storage_escape_char of Dovecot. "
        'With it a "." may stand in a name.',
        default="",
        example="%",
    )
    special_use: dict[str, tuple[str, ...]] = setting(
        "Folder names by special use (RFC 6154), one or an array: the first is made with a new account, and the first that "
        "exists has the use, before usual names in many languages.",
        default=Factory(lambda: {use: (use,) for use in ("Drafts", "Sent", "Junk", "Trash", "Archive")}),
    )
    postmaster: str = setting(
        "User who gets the mail to postmaster of each domain that has no such user, and to <postmaster>.",
        default="",
        example="anna@example.org",
    )
    search_index: bool = setting(
        "Index the text of mailboxes in which somebody has searched for text, so that searches open few messages.",
        default=True,
    )
    max_message_size: Size = setting("Largest message accepted, octets; at least 65536.", default=64 * 1024 * 1024)


@frozen
class Auth:
    """[auth]"""

    backends: tuple[str, ...] = setting(
        "Back ends in the order they are asked, NAME:ARGUMENT.", example=["file:/etc/mailserver/users"], hidden=True
    )
    default_domain: OptionalHostName = setting(
        "Domain of names without one, after the name as it is and the domain of the SNI name or the listener's default.",
        default="",
        example="example.org",
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
        "SASL mechanisms, each offered where it can succeed. `mailserver user` stores keys for the SCRAM ones here.",
        default=("EXTERNAL", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"),
    )
    scram_protocols: tuple[Literal["imap", "pop3", "submission"], ...] = setting(
        "Protocols that offer those of SCRAM. For the two that are not here no list of them serves both mutt and msmtp.",
        default=("imap",),
    )
    scram_for: Literal["all", "some"] = setting(
        "Offer SCRAM once all users have keys for it, or once some have: some clients try nothing else then.",
        default="all",
    )
    weak_schemes: bool = setting(
        "Whether passwords stored by MD5-CRYPT, which are quick to guess from a stolen file, let their users in.",
        default=False,
    )
    hash_processes: Count = setting("Processes that check password hashes.", default=2)
    hash_queue: Count = setting(
        "Password checks that may wait, in each of three classes (known users are the first); more are told to try again.",
        default=64,
    )
    failure_delay: Seconds = setting(
        "Seconds that the first failure of a user from a network costs; each doubles.", default=1.0
    )
    failure_delay_max: Seconds = setting("Longest delay, seconds.", default=15.0)
