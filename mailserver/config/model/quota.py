"""Quotas: limits of what an account may keep."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import frozen

from mailserver.config.kinds import Count, Limit, SizeLimit
from mailserver.config.model.keys import setting


@frozen
class DomainQuota:
    """[domain.quota]"""

    storage: SizeLimit | None = setting(
        "Octets of mail that an account of the domain may have. When absent, that of [quota]; 0 for no limit.",
        default=None,
        example="2G",
    )
    messages: Limit | None = setting(
        "Messages that an account of the domain may have. When absent, that of [quota]; 0 for no limit.",
        default=None,
        example=50_000,
    )
    mailboxes: Limit | None = setting(
        "Folders that an account of the domain may have. When absent, that of [quota]; 0 for no limit.",
        default=None,
        example=500,
    )


@frozen
class Quotas:
    """[quota]"""

    storage: SizeLimit | None = setting(
        "Octets of mail that an account may have, all its folders together. When absent, there is no limit.",
        default=None,
        example="1G",
    )
    messages: Limit | None = setting(
        "Messages that an account may have. When absent, there is no limit.", default=None, example=100_000
    )
    mailboxes: Limit | None = setting(
        "Folders that an account may have, INBOX included. When absent, there is no limit but that of [limits].",
        default=None,
        example=1000,
    )
    when_full: Literal["temporary", "permanent"] = setting(
        "Answer of LMTP and submission to a message that does not fit: temporary lets the sender try again (452), permanent "
        "returns the message (552).",
        default="temporary",
    )
    warnings: tuple[Count, ...] = setting(
        "Percentages of storage or messages at which the user gets a mail, each once until there is room again. 100 also "
        "stands for a message that was refused. Empty for no such mails.",
        default=(Count(80), Count(95), Count(100)),
    )
    warning_file: Path | None = setting(
        "File with the text of that mail in UTF-8, with the fields {user}, {percent}, {used} and {limit}; the first line is "
        "the subject. When absent, a text in English.",
        default=None,
        example="/etc/mailserver/quota-warning",
    )
