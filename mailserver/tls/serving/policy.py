"""The TLS policy: which certificate is served under which name. It is replaced as a whole at a reload.

`TlsPolicy` makes the OpenSSL connections of all listeners, for implicit TLS and STARTTLS alike.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

import attrs
from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailserver.config.model import Config, Listener, Problem, Tls
from mailserver.tls.context.context_map import Certificate, ContextKey, ContextMap, parse_server_name
from mailserver.tls.context.contexts import make_base
from mailserver.tls.context.handshake import (
    PROTOCOL_VERSION,
    PROTOCOLS,
    UNRECOGNIZED_NAME,
    BaseContext,
    HandshakeRefused,
    ServerConnection,
    handshake_of,
    request_certificate,
)
from mailserver.tls.context.settings import VERSIONS, Settings, setting_faults, settings_of, settings_of_listeners
from mailserver.tls.keypair.pair import Pair
from mailserver.tls.keypair.pem import Fault
from mailserver.tls.keypair.published_ca import PublishedCa, read_published_ca
from mailserver.tls.serving.context_builder import Outcome, build, default_host
from mailserver.tls.serving.material import Change, Material, assemble, material_of, without_context
from mailserver.tls.serving.source import Files, Source
from mailserver.tls.serving.validation import check

REFUSAL_INTERVAL: Final = 60.0
"""Interval in seconds in which refused names are logged once."""
_UNKNOWN: Final = "no hosts have the name that it asks for: add it there, or have the client set to one of them"


class Log(Protocol):
    """A log: one line for each event; the log escapes values."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Write a line."""


@frozen
class Prepared:
    """A changed configuration, ready to be served."""

    map: ContextMap
    tls: Tls
    listeners: Mapping[Listener, Settings]
    bases: Mapping[Settings, BaseContext]
    """New base contexts: for new settings, or to invalidate old tickets."""
    outcomes: tuple[Outcome, ...]
    private_ca: PublishedCa | None

    @property
    def material(self) -> Material:
        """The same content for a policy of another process."""
        return material_of(self.map, self.tls, self.listeners, self.private_ca)


class CannotServe(Exception):
    """No policy can be made from a configuration; `problems` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@implementer(IOpenSSLServerConnectionCreator)
class TlsPolicy:
    """The certificates in use. All calls but `prepare` must be made on the reactor's thread.

    Raises: CannotServe with all problems if a pair or setting is invalid at the start.
    """

    def __init__(
        self,
        config: Config,
        log: Log,
        *,
        material: Material | None = None,
        source: Source | None = None,
        seconds: Callable[[], float] = time.monotonic,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """With `material` no file is read: another process has read and validated it.

        `source` adds certificates to the files of the configuration. Its fallbacks are logged, and do not prevent the start.
        """
        self.source: Source = source or Files()
        self._log = log
        self._seconds = seconds
        self._now = now
        self._refusals = 0
        self._refusals_logged = float("-inf")
        self._tls = material.tls if material else config.tls
        self._settings = settings_of(self._tls)
        self._map = assemble(material, {}) if material else self._load(config)
        self.private_ca = material.private_ca if material else read_published_ca(config.tls, [])
        """The private authority for people to import."""
        self._listeners = dict(material.listeners) if material else settings_of_listeners(config, self._tls)
        self._bases = self._make_bases(_wanted(self._tls, self._listeners))
        self._kept = list(self._bases.values())
        """Every base context ever made: see `contexts`."""

    def _make_bases(self, wanted: Iterable[Settings]) -> dict[Settings, BaseContext]:
        return {settings: make_base(settings, self._choose) for settings in wanted}

    def _load(self, config: Config) -> ContextMap:
        if any(setting_faults(config)):
            raise CannotServe(_problems(config, []))
        nothing = ContextMap(MappingProxyType({}), None)
        made, outcomes = build(config, config.tls, nothing, {}, now=self._now(), source=self.source)
        if any(outcome.state == "refused" and outcome.name not in made.by_host for outcome in outcomes):
            raise CannotServe(_problems(config, outcomes))
        for outcome in outcomes:
            if outcome.why:
                self._log("TLS certificate", host=outcome.name, warning=outcome.why)
        return made

    # -- in a handshake ---------------------------------------------------------------------------------------------

    def creator(self, listener: Listener) -> IOpenSSLServerConnectionCreator:
        """Return the connection creator of one listener."""
        return ListenerTls(self, listener, PROTOCOLS.get(listener.family, ()))

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002, N802, N803
        """Make a connection without a listener."""
        return self.connection(None, ())

    def connection(self, listener: Listener | None, protocols: tuple[bytes, ...]) -> SSL.Connection:
        """Make a connection with the settings of a listener or of [tls]; `protocols` are ALPN identifiers."""
        settings = self._listeners.get(listener) if listener is not None and self._listeners else None
        default = listener.default if listener is not None else None
        unnamed = default or (self._map.default.host if self._map.default is not None else "")
        return ServerConnection(self._bases[settings or self._settings], protocols, default, unnamed)

    def _choose(self, connection: SSL.Connection) -> None:
        """Choose the context by server name, in OpenSSL's callback. Raises: HandshakeRefused."""
        raw, handshake = connection.get_servername(), handshake_of(connection)
        found = self._map.find(parse_server_name(raw)) if raw else None
        if found is None and raw and self._tls.unknown_name == "refuse":
            handshake.fault = _UNKNOWN
            self._refused(raw)
            raise HandshakeRefused(UNRECOGNIZED_NAME)
        found = found or self._map.find(handshake.default)
        handshake.host = found.host if found is not None else None
        found = found or self._map.default
        if found is None:
            raise HandshakeRefused(UNRECOGNIZED_NAME)
        if connection.get_protocol_version() < VERSIONS[found.terms.minimum_version]:
            least = found.terms.minimum_version
            handshake.fault = (
                f"{found.host} takes no TLS below {least}: renew the client, or lower minimum_version there"
            )
            raise HandshakeRefused(PROTOCOL_VERSION)
        connection.set_context(found.context)
        request_certificate(connection, found.terms.demand)

    def _refused(self, raw: bytes) -> None:
        """Log a refused name at most once every REFUSAL_INTERVAL: a scanner must not fill the log."""
        self._refusals += 1
        now = self._seconds()
        if now - self._refusals_logged >= REFUSAL_INTERVAL:
            # The repr of bytes has no control characters.
            self._log("TLS server name refused", name=repr(raw[:255])[2:-1], refusals=self._refusals, reason=_UNKNOWN)
            self._refusals_logged, self._refusals = now, 0

    # -- after it ---------------------------------------------------------------------------------------------------

    def domain_of(self, host: str | None) -> str | None:
        """Return the mail domain of a connection's host (`Handshake.host`), for logins without a domain."""
        found = self._map.find(host)
        return found.domain if found else None

    def requires_certificate(self, domain: str) -> bool:
        """See `ContextMap.requires_certificate`."""
        return self._map.requires_certificate(domain)

    def requires_named_user(self, domain: str) -> bool:
        """See `ContextMap.requires_named_user`."""
        return self._map.requires_named_user(domain)

    def accepts_certificate(self, host: str | None, domain: str) -> bool:
        """See `ContextMap.accepts_certificate`."""
        return self._map.accepts_certificate(host, domain)

    def pair_of(self, server_name: str) -> Pair | None:
        """Return the pair that a name is served with; None if no host covers it."""
        found = self._map.find(server_name)
        return found.pair if found else None

    # -- changes ----------------------------------------------------------------------------------------------------

    def reload(self, config: Config) -> list[Outcome]:
        """Load a changed configuration; a host that cannot be served keeps its last good certificate.

        Existing connections stay as they are. Raises nothing.
        """
        return self.commit(self.prepare(config))

    def prepare(self, config: Config) -> Prepared:
        """Read and validate all files: the first half of `reload`. May run in a thread; changes nothing."""
        tls, outcomes = config.tls, []
        faults = [f"{place} {key} {why}" for place, key, _value, why in setting_faults(config)]
        if faults:
            # The settings of [tls] and of listeners are refused together: they may depend on each other.
            outcomes.append(Outcome("[tls]", "refused", "; ".join(faults)))
            tls = attrs.evolve(self._tls, default=tls.default, unknown_name=tls.unknown_name)
            listeners = dict(self._listeners)
        else:
            listeners = settings_of_listeners(config, tls)
            if settings_of(tls) != settings_of(self._tls) or listeners != self._listeners:
                outcomes.append(Outcome("[tls]", "taken up"))
        of_ca: list[Fault] = []
        private_ca = read_published_ca(config.tls, of_ca)
        if of_ca:
            outcomes.append(_of_private_ca(of_ca))
            private_ca = self.private_ca
        new, of_hosts = build(config, tls, self._map, self._contexts(tls), now=self._now(), source=self.source)
        bases = self._new_bases(new, tls, listeners)
        return Prepared(new, tls, listeners, bases, (*outcomes, *of_hosts), private_ca)

    def prepare_hosts(self, config: Config, hosts: Collection[str]) -> Prepared:
        """Prepare the domains of some hosts of the served configuration; files of others are not read.

        Without hosts, prepare the private authority alone.
        """
        domains = tuple(
            attrs.evolve(domain, sites=())
            for domain in config.domains_and_sites
            if any(host in hosts for host in domain.hosts)
        )
        of_domains = {host for domain in domains for host in domain.hosts}
        current = self._map
        part = {host: serving for host, serving in current.by_host.items() if host in of_domains}
        new, outcomes = build(
            attrs.evolve(config, domains=domains),
            self._tls,
            ContextMap(MappingProxyType(part), current.default),
            self._contexts(self._tls),
            now=self._now(),
            source=self.source,
            keep_bases=True,
        )
        by_host = {**current.by_host, **new.by_host}
        default = by_host.get(default_host(config), current.default)
        results = [outcome for outcome in outcomes if outcome.name in of_domains]
        new = ContextMap(MappingProxyType(by_host), default)
        of_ca: list[Fault] = []
        private_ca = read_published_ca(config.tls, of_ca) or self.private_ca
        if of_ca and not hosts:  # it concerns no host
            results.append(_of_private_ca(of_ca))
        return Prepared(new, self._tls, self._listeners, {}, tuple(results), private_ca)

    def changed_hosts(self, prepared: Prepared) -> list[str]:
        """Return the hosts that `prepared` serves differently."""
        old = self._map.by_host
        return [host for host, each in prepared.map.by_host.items() if old.get(host) != each]

    def change(self, prepared: Prepared) -> Change:
        """Return the difference to `prepared`, for another process."""
        hosts = [prepared.map.by_host[host] for host in self.changed_hosts(prepared)]
        default = prepared.map.default
        return Change(
            tuple(map(without_context, hosts)), without_context(default) if default else None, prepared.private_ca
        )

    def apply(self, change: Change) -> None:
        """Serve another process's change; only changed hosts get new contexts. Raises: BadPair."""
        new = assemble(Material(self._tls, (), change.hosts, change.default), self._contexts(self._tls))
        self._map = ContextMap(MappingProxyType({**self._map.by_host, **new.by_host}), new.default)
        self.private_ca = change.private_ca

    def prepare_material(self, material: Material) -> Prepared:
        """Prepare what another process has validated; that process reports the outcomes."""
        new, listeners = assemble(material, self._contexts(material.tls)), dict(material.listeners)
        bases = self._new_bases(new, material.tls, listeners)
        return Prepared(new, material.tls, listeners, bases, (), material.private_ca)

    def _contexts(self, tls: Tls) -> dict[ContextKey, SSL.Context]:
        """Return the contexts to use again."""
        if settings_of(tls).ciphers != self._settings.ciphers:
            return {}
        return {serving.key: serving.context for serving in self._map.all()}

    def _new_bases(
        self, new: ContextMap, tls: Tls, listeners: Mapping[Listener, Settings]
    ) -> dict[Settings, BaseContext]:
        """Make base contexts for new settings, or for all if a name's terms have changed.

        Sessions begun on the old terms must then not be resumed.
        """
        old = self._map
        pairs = [(new.default, old.default), *((each, old.by_host.get(host)) for host, each in new.by_host.items())]
        others = any(one and other and one.terms.resumable != other.terms.resumable for one, other in pairs)
        wanted = _wanted(tls, listeners)
        return self._make_bases(wanted if others else wanted - set(self._bases))

    def commit(self, prepared: Prepared) -> list[Outcome]:
        """Serve what was prepared to new handshakes: the second half of `reload`."""
        # Old base contexts stay for running handshakes. Tickets of replaced ones are no longer resumed.
        self._kept += prepared.bases.values()
        wanted = _wanted(prepared.tls, prepared.listeners)
        self._bases = {each: prepared.bases.get(each) or self._bases[each] for each in wanted}
        self._map, self._tls, self._listeners = prepared.map, prepared.tls, dict(prepared.listeners)
        self._settings = settings_of(self._tls)
        self.private_ca = prepared.private_ca
        return list(prepared.outcomes)

    def rotate_tickets(self) -> None:
        """Encrypt new tickets with new keys: a stolen key opens no later session. Old tickets are no longer resumed.

        Call it every few days: OpenSSL keeps the keys inside a base context, and no base context is ever freed.
        """
        self._bases = self._make_bases(_wanted(self._tls, self._listeners))
        self._kept += self._bases.values()

    @property
    def served(self) -> ContextMap:
        """The contexts served now."""
        return self._map

    @property
    def material(self) -> Material:
        """The served certificates and settings, for a policy of another process."""
        return material_of(self._map, self._tls, self._listeners, self.private_ca)

    # -- for people -------------------------------------------------------------------------------------------------

    def describe(self) -> list[Certificate]:
        """Describe the served certificates, by host name."""
        return self._map.describe()


@implementer(IOpenSSLServerConnectionCreator)
@frozen
class ListenerTls:
    """The connection creator of one listener; Twisted calls it for implicit TLS and STARTTLS."""

    policy: TlsPolicy
    listener: Listener
    protocols: tuple[bytes, ...]
    """ALPN identifiers."""

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: ARG002, N802, N803
        """Make a connection."""
        # It does not refer to the protocol: both would hold each other until the garbage collector finds the cycle.
        return self.policy.connection(self.listener, self.protocols)


def _wanted(tls: Tls, listeners: Mapping[Listener, Settings]) -> set[Settings]:
    return {settings_of(tls), *listeners.values()}


def _of_private_ca(faults: list[Fault]) -> Outcome:
    return Outcome("[tls] private_ca", "refused", faults[0].reason)


def _problems(config: Config, outcomes: list[Outcome]) -> list[Problem]:
    """Say why the start is refused: by `check`, or if that no longer finds anything, by the build's outcomes."""
    found = [problem for problem in check(config) if not problem.warning]
    return found or [config.problem("", outcome.name, outcome.why) for outcome in outcomes if outcome.why]
