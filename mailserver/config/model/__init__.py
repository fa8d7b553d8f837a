"""The model of the configuration: a frozen attrs class for each table of the TOML file.

Each key is declared with its description, default and example; `describe` generates the documents from them. `kinds` has
the types of single values, and `check` the rules between values. To add a key, add a `setting` to its table's class.
"""

from __future__ import annotations

from mailserver.config.model.acme import Acme, AcmeDns
from mailserver.config.model.domain import Domain, MtaSts, Site
from mailserver.config.model.listener import Listener
from mailserver.config.model.mail import Auth, BackendUse, Mail, Queue
from mailserver.config.model.problem import Problem
from mailserver.config.model.protocols import HiddenCapabilities, Http, Imap, Lmtp, Pop3, Relay, Submission
from mailserver.config.model.quota import DomainQuota, Quotas
from mailserver.config.model.service import Bans, Cache, Explain, Ledger, Limits, Server
from mailserver.config.model.tls import Tls
from mailserver.config.model.whole import Config

__all__ = [
    "Acme",
    "AcmeDns",
    "Auth",
    "BackendUse",
    "Bans",
    "Cache",
    "Config",
    "Domain",
    "DomainQuota",
    "Explain",
    "HiddenCapabilities",
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
    "Queue",
    "Quotas",
    "Relay",
    "Server",
    "Site",
    "Submission",
    "Tls",
]
