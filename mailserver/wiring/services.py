"""The objects of a process that serves, made from its configuration. Only this module connects them with one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.auth.backends.backends import BackendFault, Backends
from mailserver.auth.backends.guard import Scheduler
from mailserver.auth.changed_users import ChangedUsers
from mailserver.auth.credential_uses import CredentialUse
from mailserver.auth.exposure.checker import ExposureMark
from mailserver.auth.restrictions import Names
from mailserver.auth.schemes.hash_pool import HashPool
from mailserver.auth.schemes.schemes import MAX_MEMORY_KIB
from mailserver.auth.throttling.banned_clients import BannedClients
from mailserver.config.model import Config
from mailserver.dovecot_auth.session import AuthSession
from mailserver.imap.session import Session as ImapSession
from mailserver.lookup.session import LookupSession
from mailserver.net.connection.blocking_calls import BlockingThreads
from mailserver.net.connection.coroutines import AbandonableDeferred, abandonable, spawn, start_task
from mailserver.net.connection.listener_context import Session
from mailserver.net.connection.store_threads import AccountRunner, StoreThreads
from mailserver.net.fast.versions import choose_transports
from mailserver.net.ipc.child_processes import ProcessSpawner
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.pokes import Pokes
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.log.events import log
from mailserver.net.outbound.dialer import NextHopDialer
from mailserver.net.service.known_networks_file import KnownNetworksFile
from mailserver.net.service.server_bans import ServerBans
from mailserver.net.serving.serving import ReloadCheck
from mailserver.notify.account_watcher import AccountWatcher
from mailserver.notify.watcher import GATHER_TIME, Watcher
from mailserver.pop3.session import Session as Pop3Session
from mailserver.queue.model import Settings as QueueSettings
from mailserver.session.channel import Channel
from mailserver.smtp.lmtp import LmtpSession
from mailserver.smtp.spool import FileSpool
from mailserver.smtp.submission import SubmissionSession
from mailserver.store.live import (
    LiveAccounts,
    MessageCache,
    OpenIndexes,
    keep_private,
    never_changed,
    notify_nobody,
    take_nothing,
)
from mailserver.store.live.notices import Notices
from mailserver.store.live.quota_warnings import QuotaWarnings
from mailserver.store.maintenance import Maintenance
from mailserver.store.scan_pool import ScanPool
from mailserver.system.free_memory import return_free_memory
from mailserver.tls.changes.activation import Activation
from mailserver.tls.changes.listing import summary
from mailserver.tls.client import client_creator
from mailserver.tls.keypair.pair import BadPair
from mailserver.tls.serving import policy
from mailserver.tls.serving.context_builder import in_words
from mailserver.tls.serving.material import Change, Material
from mailserver.types import DirectoryId
from mailserver.wiring.copy_decisions import QueueDecisions
from mailserver.wiring.logins import Logins
from mailserver.wiring.mail_store import make_store
from mailserver.wiring.protocols import make_protocol_services
from mailserver.wiring.reload_check import check_reload, read_policy

STORE_THREADS = 8
TICKET_ROTATION = 7 * 24 * 3600.0
"""Seconds after which TLS session tickets get new keys: an attacker who has the old ones can read no later session."""
HASH_MEMORY_KIB = 2 * MAX_MEMORY_KIB
"""Memory of the processes that check passwords, in all workers together; each worker may check one hash."""
CLOSING_TIME, LEAST_CLOSING_TIME, LAST_WAIT = 1.8, 0.2, 0.1
"""Seconds for operations of the store to end: since the stop began; at least; and for the threads."""


@frozen
class Prepared:
    """A changed configuration with the objects that one process has made of it."""

    config: Config
    tls: policy.Prepared
    next_hop: NextHopDialer | None


class Services:
    """All objects of a process that serves (`net.service.single_process.SingleProcessServices`)."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        link: ServerLink | None = None,
        *,
        tls: policy.TlsPolicy | None = None,
        workers: int = 1,
        mail_root: DirectoryId | None = None,
    ) -> None:
        """`link`: to the other workers, if there are any; `workers` are all, which share a policy.

        `mail_root`: its identity when the server started. Raises: SystemExit.
        """
        self.config = config
        self._reactor = reactor
        try:
            self.activation: Activation | None = None
            if tls is None:
                tls, self.activation = read_policy(config, reactor.seconds)
            self.tls = tls
            self._next_hop = self._make_next_hop(config)
        except (BadPair, OSError) as error:
            raise SystemExit(str(error)) from error
        self._spawner = ProcessSpawner(reactor)
        self._hash_pool = HashPool(
            self._spawner,
            AbandonableDeferred,
            reactor.callLater,
            processes=max(1, config.auth.hash_processes // workers),
            queue=config.auth.hash_queue,
            memory_kib=HASH_MEMORY_KIB // workers,
        )
        self._scans = ScanPool(self._spawner, AbandonableDeferred, reactor.callLater)
        self._stopping_since = 0.0
        self._pool = StoreThreads(STORE_THREADS)
        self._account_watcher = AccountWatcher(reactor, reactor)
        self._watcher = Watcher(reactor, reactor, gather=GATHER_TIME if link is not None else 0.0)
        # Workers share their keys for tickets; these change when the workers do.
        self._rotation = LoopingCall(self.tls.rotate_tickets) if link is None else None
        self._pokes = Pokes(link, reactor, reactor) if link is not None else None
        self._upkeep = Maintenance(self._sleep, spawn)
        self._notices = Notices(lambda: self._accounts, spawn)
        self._quota_warnings = QuotaWarnings(self._notices, spawn)
        self._decisions = QueueDecisions(config.queue_directory, QueueSettings(hostname=config.server.hostname))
        self._accounts = self._make_accounts(config, mail_root, link)
        self._blocking = BlockingThreads(reactor)
        self._backends = Backends(
            self._hash_pool, Scheduler(reactor.seconds, reactor.callLater, Deferred, spawn, self._blocking.make)
        )
        try:
            self._backends.add(config.auth.backends)
        except BackendFault as fault:
            raise SystemExit(f"{config.source} [auth] backends: {fault}") from fault
        self._logins = Logins(
            reactor,
            link,
            self._hash_pool,
            lambda seconds: abandonable(deferLater(reactor, seconds)),
            None if config.embedded else config.server.runtime_dir,
            threads=self._blocking.make(1),
            notices=self._notices,
        )
        self._spool = FileSpool(str(config.mail.root / "mailserver-spool"), self._make_runner)
        self._apply_config()

    def _make_accounts(self, config: Config, mail_root: DirectoryId | None, link: ServerLink | None) -> LiveAccounts:
        table = None if link is None else link.open_mailboxes
        return LiveAccounts(
            make_store(config, root_seen=mail_root, decided=self._decisions.decided),
            self._make_runner,
            scans=self._scans,
            wake=self._upkeep.wake,
            warn=self._quota_warnings.send,
            notify_others=notify_nobody if self._pokes is None else self._pokes.send,
            opening=keep_private if table is None else table.mark,
            opened=keep_private if table is None else table.opened,
            closed=keep_private if table is None else table.closed,
            change_flag=never_changed if table is None else table.change_flag,
            take_changed=take_nothing if table is None else table.take_changed,
            watch=self._watcher.watch,
            leave=self._watcher.leave,
            unwatch=self._watcher.unwatch,
            watch_names=self._account_watcher.watch,
            unwatch_names=self._account_watcher.unwatch,
            pause=self._watcher.pause,
            resume=self._watcher.resume,
            message_cache=MessageCache(call_later=self._reactor.callLater, seconds=self._reactor.seconds),
            open_indexes=OpenIndexes(
                call_later=self._reactor.callLater,
                seconds=self._reactor.seconds,
                trim=lambda: self._make_runner().run(return_free_memory),
            ),
        )

    def _apply_config(self) -> None:
        """Make the objects without state anew, from the configuration: at the start and at each reload."""
        config = self.config
        self._accounts.max_unused_accounts = config.cache.accounts
        self._accounts.max_unused_messages = config.cache.messages
        self._accounts.open_indexes.most = config.cache.indexes
        self._accounts.message_cache.octets = config.cache.message_octets
        self._accounts.message_cache.files = config.cache.files
        self._authenticator = self._logins.make_service(
            config.auth,
            config.explain,
            self._backends.chosen(config.auth.backends),
            Names(
                frozenset(domain.name.lower() for domain in config.domains),
                config.auth.default_domain,
                self.tls.domain_of,
                self.tls.accepts_certificate,
                self.tls.requires_certificate,
                self.tls.requires_named_user,
                config.lmtp.detail_separator,
            ),
        )
        self._notices.hostname = config.server.hostname
        self._quota_warnings.text_file = config.quota.warning_file
        self._protocols = make_protocol_services(
            config,
            authenticator=self._authenticator,
            accounts=self._accounts,
            spool=self._spool,
            decisions=self._decisions,
            next_hop=self._next_hop,
            start_task=lambda coroutine: start_task(coroutine, self._reactor.seconds),
        )
        if any(listener.family == "http" for listener in config.listeners):
            # Here: where there is no such listener, what it takes must cost no memory and no time at the start.
            from mailserver.wiring.http import make_http  # noqa: PLC0415

            self._http = make_http(config, self.tls, self._all_numbers)

    def session_maker(self, family: str) -> Callable[[Channel], Session]:
        """Make sessions of a protocol, each with the settings of the time at which it begins."""
        makers: dict[str, Callable[[Channel], Session]] = {
            "imap": lambda channel: ImapSession(channel, self._protocols.imap),
            "pop3": lambda channel: Pop3Session(channel, self._protocols.pop3),
            "submission": lambda channel: SubmissionSession(channel, self._protocols.submission),
            "lmtp": lambda channel: LmtpSession(channel, self._protocols.lmtp),
            "auth": lambda channel: AuthSession(channel, lambda: self._protocols.auth),
            "lookup": lambda channel: LookupSession(channel, lambda: self._protocols.lookup),
            "http": self._make_http_session,
        }
        return makers[family]

    def set_status_query(self, query_status: Callable[[], Deferred[dict[str, Json]]]) -> None:
        """Set the query by which HTTP sessions get the numbers of all workers."""
        self._ask_status = query_status

    def set_exposure_recorder(self, take: Callable[[ExposureMark], None]) -> None:
        """Set the recorder of passwords that came in clear text, in a server without workers."""
        self._logins.set_exposure_recorder(take)

    def set_use_recorder(self, take: Callable[[Sequence[CredentialUse]], None]) -> None:
        """Set the recorder of uses of app passwords, in a server without workers."""
        self._logins.set_use_recorder(take)

    def use_known_networks(self, file: KnownNetworksFile) -> None:
        """Use the known networks of a file, in a server without workers."""
        self._logins.use_known_networks(file)

    def use_bans(self, bans: ServerBans) -> None:
        """Use the bans of the server, in a server without workers."""
        self._logins.use_bans(bans)

    @property
    def banned(self) -> BannedClients:
        """The banned clients."""
        return self._logins.banned

    def start(self) -> None:
        """Start hash processes and the watcher; threads start when they are needed."""
        self._backends.read_ahead()
        self._hash_pool.start()
        self._watcher.start()
        if self._pokes is not None:
            self._pokes.start(self._accounts)
        if self._rotation is not None:
            self._rotation.clock = self._reactor
            self._rotation.start(TICKET_ROTATION, now=False)

    def cancel_background(self) -> None:
        """Cancel scans of large mailboxes and maintenance; the next start resumes them."""
        self._stopping_since = self._stopping_since or self._reactor.seconds()
        self._scans.stop()
        self._upkeep.stop()

    async def stop(self) -> None:
        """Close the accounts, then end threads and processes."""
        if self._rotation is not None and self._rotation.running:
            self._rotation.stop()
        self._watcher.stop()
        self._account_watcher.stop()
        if self._pokes is not None:
            self._pokes.stop()
        self._hash_pool.stop()
        self.cancel_background()
        closing = DeferredList([cast("Deferred[None]", each) for each in self._accounts.close()], consumeErrors=True)
        since = self._reactor.seconds() - self._stopping_since
        ends = await closing.addTimeout(max(CLOSING_TIME - since, LEAST_CLOSING_TIME), self._reactor)
        if not all(in_time for in_time, _result in ends):
            # Its intent is on disk: the next start finishes or undoes the change, as after a crash.
            log.warn("a store operation does not end: stopping without it", event="store-operation-left")
        self._pool.stop(LAST_WAIT)
        self._decisions.close()
        self._blocking.stop(LAST_WAIT)
        self._logins.close()

    def close(self) -> None:
        """Close the history of certificates, after `stop`; a process that ends need not."""
        if self.activation is not None:
            self.activation.history.close()

    def when_processes_ended(self) -> Deferred[None]:
        """Wait for the child processes, which `stop` ends."""
        return self._spawner.when_none()

    def status(self) -> dict[str, Json]:
        """Numbers, or [number, bound], for `mailserver status`."""
        usage, cache = self._accounts.usage(), self.config.cache
        return {
            "certificates": cast("list[Json]", summary(self.tls)),
            "accounts_in_use": usage.accounts_in_use,
            "accounts_kept": [usage.accounts_kept, cache.accounts],
            "indexes": [usage.indexes, cache.indexes],
            "mailboxes_in_use": usage.mailboxes_in_use,
            "messages_in_use": usage.messages_in_use,
            "mailboxes_kept": usage.mailboxes_kept,
            "messages_kept": [usage.messages_kept, cache.messages],
            "message_octets": [usage.octets_kept, cache.message_octets],
            # The old name, until the next release.
            "recent_octets": [usage.octets_kept, cache.message_octets],
            "files_kept": [usage.files_kept, cache.files],
            "commands_known": [self._protocols.imap.argument_cache.known, cache.commands],
            "hashes_running": list(self._hash_pool.running),
            "hashes_waiting": list(self._hash_pool.waiting),
            "mailboxes_read_apart": self._scans.orders,
            "maintenance_due": self._upkeep.due,
            "maintenance_milliseconds": round(self._upkeep.spent * 1000),
            **self._logins.status(),
        }

    def reload_users(self) -> Deferred[None]:
        """Read the users again, in a thread; fires when logins see the changes."""
        return Deferred.fromCoroutine(self._reread_users())

    def changed_users(self) -> ChangedUsers | None:
        """Return the users whose sessions must end, since the last call; None: it may be anybody."""
        return self._backends.changed_users()

    def check_reload(self) -> ReloadCheck[Prepared]:
        """Read and check the changed file and all that it names; in a thread."""
        checked = check_reload(self.config, self.tls)
        if checked.prepared is None:
            return ReloadCheck(None, checked.lines, None)
        try:
            prepared = self.prepare(checked.prepared.config, checked.prepared.tls)
        except (BadPair, OSError) as error:  # a file that has changed since it was checked
            return ReloadCheck(None, [*checked.lines, f"{self.config.source} [submission.relay]: {error}"], None)
        return ReloadCheck(checked.config, checked.lines, prepared, whole=checked.whole)

    def prepare(self, config: Config, tls: policy.Prepared | Material) -> Prepared:
        """Make what `accept` and `commit` take, of a configuration that was checked; in a thread. Raises: BadPair, OSError."""
        if isinstance(tls, Material):
            tls = self.tls.prepare_material(tls)
        self._backends.read_ahead()
        return Prepared(config, tls, self._make_next_hop(config))

    def apply_certificates(self, change: Change) -> None:
        """Serve certificates that the master has checked and changed."""
        self.tls.apply(change)

    def accept(self, prepared: Prepared) -> list[str]:
        """Make new back ends; the faults, in words."""
        try:
            self._backends.add(prepared.config.auth.backends)
        except BackendFault as fault:
            log.failure("back end {name} cannot be used", Failure(fault.error), event="bug", name=fault.name)
            return [f"[auth] backends: {fault.name}: {fault}"]
        return []

    def commit(self, prepared: Prepared) -> list[str]:
        """Use the new configuration for new sessions, and for the next request of open ones."""
        self.config = prepared.config
        lines = in_words(self.tls.commit(prepared.tls))
        self._next_hop = prepared.next_hop
        self._backends.reload()
        self._apply_config()
        return lines

    async def _reread_users(self) -> None:
        await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._backends.read_ahead)
        self._backends.reload()

    def _make_next_hop(self, config: Config) -> NextHopDialer | None:
        relay = config.submission.relay
        if relay is None:
            return None
        transports = choose_transports(config.server.transport, self._reactor)
        return NextHopDialer(self._reactor, relay, client_creator(relay), transports)

    def _make_http_session(self, channel: Channel) -> Session:
        return self._http(channel)

    def _all_numbers(self) -> Deferred[dict[str, Json]]:
        return self._ask_status()

    def _make_runner(self) -> AccountRunner:
        return AccountRunner(self._reactor, self._pool)

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)
