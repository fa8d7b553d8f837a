"""The configuration as typed, frozen values. One class per table of the TOML file; `load` makes them.

Each key's meaning, default and an example stand beside it, and `describe` turns them into etc/mailserver.toml. What a
value may look like is said by its type (`kinds`). What values may stand together is said in `check`.
"""

from __future__ import annotations

from mailserver.config.model.acme import Acme, AcmeDns
from mailserver.config.model.domain import Domain, MtaSts, Site
from mailserver.config.model.listener import Listener
from mailserver.config.model.mail import Auth, Mail
from mailserver.config.model.problem import Problem
from mailserver.config.model.protocols import Http, Imap, Lmtp, Pop3, Relay, Submission
from mailserver.config.model.service import Cache, Ledger, Limits, Server
from mailserver.config.model.tls import Tls
from mailserver.config.model.whole import Config

__all__ = [
    "Acme",
    "AcmeDns",
    "Auth",
    "Cache",
    "Config",
    "Domain",
    "Http",
    "Imap",
    "Ledger",
    "Limits",
    "Listener",
    "Lmtp",
    "Mail",
    "MtaSts",
    "Pop3",
    "Problem",
    "Relay",
    "Server",
    "Site",
    "Submission",
    "Tls",
]
