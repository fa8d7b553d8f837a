"""The services of each protocol's sessions, made from the configuration: at the start and at each reload."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from mailserver.auth.interfaces import Authenticator
from mailserver.config.model import Auth, Config
from mailserver.dovecot_auth.exchange import StartTask
from mailserver.dovecot_auth.session import Services as AuthSocketServices
from mailserver.filing.interfaces import CopyDecisions
from mailserver.imap import commands as imap_commands
from mailserver.imap.argument_cache import ArgumentCache
from mailserver.imap.services import Services as ImapServices
from mailserver.lookup.maps import Services as LookupServices
from mailserver.net.connection.coroutines import AbandonableDeferred, run_concurrently
from mailserver.net.outbound.dialer import NextHopDialer
from mailserver.pop3 import commands as pop3_commands
from mailserver.pop3.session import Services as Pop3Services
from mailserver.sasl.registry import Mechanisms
from mailserver.session.quotas import UserQuotas
from mailserver.smtp import tables as smtp_tables
from mailserver.smtp.address import Address
from mailserver.smtp.lmtp import LmtpServices
from mailserver.smtp.postmaster import Postmaster
from mailserver.smtp.signing import MessageSigner
from mailserver.smtp.spool import FileSpool
from mailserver.smtp.submission import SubmissionServices
from mailserver.smtp.transaction import find_recipients
from mailserver.store.live import LiveAccounts


@frozen
class ProtocolServices:
    """The services of each protocol."""

    imap: ImapServices
    pop3: Pop3Services
    submission: SubmissionServices
    lmtp: LmtpServices
    auth: AuthSocketServices
    lookup: LookupServices


def make_protocol_services(
    config: Config,
    *,
    authenticator: Authenticator,
    accounts: LiveAccounts,
    spool: FileSpool,
    decisions: CopyDecisions,
    next_hop: NextHopDialer | None,
    start_task: StartTask,
) -> ProtocolServices:
    """Make them, with the objects that the protocols share. `start_task` runs a coroutine beside its session."""
    postmaster = Postmaster(
        config.mail.postmaster,
        config.auth.default_domain or next((each.name for each in config.domains), ""),
        "{home}" not in config.mail.location,
    )
    quotas = UserQuotas.of_config(config)
    imap = ImapServices(
        table=imap_commands.TABLE,
        authenticator=authenticator,
        accounts=accounts,
        hostname=config.server.hostname,
        mail=config.mail,
        mechanisms=_mechanisms(config.auth, "imap"),
        quotas=quotas,
        config=config.imap,
        limits=config.limits,
        argument_cache=ArgumentCache(config.cache.commands),
    )
    pop3 = Pop3Services(
        table=pop3_commands.TABLE,
        authenticator=authenticator,
        accounts=accounts,
        config=config.pop3,
        mechanisms=_mechanisms(config.auth, "pop3"),
        hostname=config.server.hostname,
        limits=config.limits,
    )
    submission = SubmissionServices(
        table=smtp_tables.SUBMISSION,
        authenticator=authenticator,
        accounts=accounts,
        config=config.submission,
        mechanisms=_mechanisms(config.auth, "submission"),
        hostname=config.server.hostname,
        mail=config.mail,
        limits=config.limits,
        spool=spool,
        quotas=quotas,
        postmaster=postmaster,
        signer=MessageSigner(
            config.dkim_keys, silent=[domain.name for domain in config.domains if domain.dkim == "off"]
        ),
        detail_separator=config.lmtp.detail_separator,
        next_hop=next_hop,
        gather=run_concurrently,
        decisions=decisions,
    )
    lmtp = LmtpServices(
        table=smtp_tables.LMTP,
        authenticator=authenticator,
        accounts=accounts,
        config=config.lmtp,
        hostname=config.server.hostname,
        mail=config.mail,
        limits=config.limits,
        spool=spool,
        quotas=quotas,
        postmaster=postmaster,
        gather=run_concurrently,
        decisions=decisions,
    )
    auth = AuthSocketServices(
        authenticator=authenticator,
        mechanisms=_mechanisms(config.auth, "submission"),
        start=start_task,
        waiting=AbandonableDeferred,
        limits=config.limits,
    )
    lookup = LookupServices(
        authenticator=authenticator,
        find_recipients=lambda local, domain: find_recipients(
            authenticator, Address(local, domain), config.lmtp.detail_separator, postmaster
        ),
        detail_separator=config.lmtp.detail_separator,
        default_domain=config.auth.default_domain,
        limits=config.limits,
    )
    return ProtocolServices(imap, pop3, submission, lmtp, auth, lookup)


def _mechanisms(auth: Auth, protocol: Literal["imap", "pop3", "submission"]) -> Mechanisms:
    with_scram = protocol in auth.scram_protocols
    return Mechanisms(name for name in auth.mechanisms if with_scram or not name.startswith("SCRAM-"))
