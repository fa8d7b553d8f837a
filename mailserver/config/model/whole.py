"""The whole configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import Factory, field, frozen

from mailserver.config.model.acme import Acme
from mailserver.config.model.domain import Domain
from mailserver.config.model.keys import not_a_key
from mailserver.config.model.listener import Listener
from mailserver.config.model.mail import Auth, Mail, Queue
from mailserver.config.model.problem import Problem
from mailserver.config.model.protocols import Http, Imap, Lmtp, Pop3, Submission
from mailserver.config.model.quota import Quotas
from mailserver.config.model.service import Bans, Cache, Explain, Ledger, Limits, Server
from mailserver.config.model.tls import Tls


@frozen
class Config:
    """The whole file."""

    server: Server
    mail: Mail
    auth: Auth
    domains: tuple[Domain, ...]
    """[[domain]]"""
    listeners: tuple[Listener, ...]
    """[[listener]]"""
    tls: Tls = Factory(Tls)
    imap: Imap = Factory(Imap)
    pop3: Pop3 = Factory(Pop3)
    submission: Submission = Factory(Submission)
    lmtp: Lmtp = Factory(Lmtp)
    http: Http = Factory(Http)
    acme: Acme | None = None
    queue: Queue = Factory(Queue)
    quota: Quotas = Factory(Quotas)
    limits: Limits = Factory(Limits)
    bans: Bans = Factory(Bans)
    cache: Cache = Factory(Cache)
    explain: Explain = Factory(Explain)
    ledger: Ledger = Factory(Ledger)
    source: Path = Path()
    """Path of the file."""
    dkim_keys: tuple[Any, ...] = field(default=(), repr=False, eq=False, metadata={"no_key": True})
    """`dkim.key_file.SigningDomain`s. The process that reads keys sets them; not a setting."""
    embedded: bool = not_a_key(default=False)
    """Is it for the factories in another program (`mailserver.embedding`), which need no listeners and no domains?"""

    @property
    def queue_directory(self) -> Path:
        """The directory of the mail queue, whether it exists or not."""
        return self.queue.directory or self.mail.root / "mailserver-queue"

    @property
    def domains_and_sites(self) -> tuple[Domain, ...]:
        """All tables with a certificate: the domains, each followed by its sites."""
        return tuple(each for domain in self.domains for each in domain.with_sites)

    @property
    def signed_domains(self) -> tuple[str, ...]:
        """Domains whose mail gets DKIM signatures, if they have keys."""
        return tuple(domain.name for domain in self.domains if domain.dkim == "sign")

    @property
    def acme_hosts(self) -> tuple[str, ...]:
        """Hosts with certificates from the authority of [acme]."""
        if self.acme is None:
            return ()
        return tuple(host for each in self.domains_and_sites if each.acme for host in each.hosts)

    def problem(self, place: str, value: str, reason: str, near: str = "", *, warning: bool = False) -> Problem:
        """Make a Problem of this file."""
        return Problem(str(self.source), place, value, reason, near, warning)
