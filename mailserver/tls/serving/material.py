"""Served certificates as plain values for other processes, and the context map made from them.

Contexts cannot be sent to another process, and workers cannot read keys. So the master sends validated octets, and each
process makes its contexts from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen
from OpenSSL import SSL

from mailserver.config.model import Listener, Tls
from mailserver.tls.context.context_map import ContextKey, ContextMap, Origin, ServedHost, Terms, context_key
from mailserver.tls.context.contexts import make_context
from mailserver.tls.context.settings import Settings, settings_of
from mailserver.tls.keypair.pair import Pair
from mailserver.tls.keypair.published_ca import PublishedCa


@frozen
class HostMaterial:
    """The certificates and terms of one host name, without a context."""

    host: str
    domain: str
    pair: Pair
    terms: Terms
    origin: Origin = "file"


@frozen
class Material:
    """Everything that a policy serves, as validated octets."""

    tls: Tls
    listeners: tuple[tuple[Listener, Settings], ...]
    """Listeners whose settings differ from [tls]."""
    hosts: tuple[HostMaterial, ...]
    default: HostMaterial | None
    private_ca: PublishedCa | None = None


@frozen
class Change:
    """A change of some host names, for a policy of another process."""

    hosts: tuple[HostMaterial, ...]
    default: HostMaterial | None
    private_ca: PublishedCa | None


def without_context(serving: ServedHost) -> HostMaterial:
    """Convert a served host to plain values."""
    return HostMaterial(serving.host, serving.domain, serving.pair, serving.terms, serving.origin)


def material_of(
    served: ContextMap, tls: Tls, listeners: Mapping[Listener, Settings], private_ca: PublishedCa | None
) -> Material:
    """Convert a map to plain values."""
    default = served.default
    return Material(
        tls,
        tuple(listeners.items()),
        tuple(map(without_context, served.by_host.values())),
        without_context(default) if default else None,
        private_ca,
    )


def assemble(material: Material, contexts: dict[ContextKey, SSL.Context]) -> ContextMap:
    """Build the context map of material; `contexts` are reused. Raises: BadPair."""
    settings = settings_of(material.tls)

    def serving(served: HostMaterial) -> ServedHost:
        key = context_key(served.pair, served.terms)
        if key not in contexts:
            contexts[key] = make_context(served.pair, settings, served.terms)
        return ServedHost(served.host, served.domain, served.pair, served.terms, contexts[key], served.origin)

    by_host = {served.host: serving(served) for served in material.hosts}
    return ContextMap(MappingProxyType(by_host), serving(material.default) if material.default else None)
