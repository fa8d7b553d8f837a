"""What is served, as values that other processes can be given, and the map of contexts that is made of them.

Contexts cannot be sent to another process, and who serves cannot read keys: what was judged where they can be read goes as
octets, and each process makes contexts of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen
from OpenSSL import SSL

from mailserver.config.model import Listener, Tls
from mailserver.tls.context.contexts import ContextKey, ContextMap, Origin, ServedHost, Terms, context_key, make_context
from mailserver.tls.context.settings import Settings, settings_of
from mailserver.tls.keypair.pair import Pair
from mailserver.tls.keypair.published_ca import PublishedCa


@frozen
class HostMaterial:
    """What one host name is served under."""

    host: str
    domain: str
    pair: Pair
    terms: Terms
    origin: Origin = "file"


@frozen
class Material:
    """All that a policy serves, as octets that were judged: made where files can be read, and used elsewhere."""

    tls: Tls
    listeners: tuple[tuple[Listener, Settings], ...]
    """The settings of those that have others than [tls]."""
    hosts: tuple[HostMaterial, ...]
    default: HostMaterial | None
    private_ca: PublishedCa | None = None


@frozen
class Change:
    """What is served otherwise than before to some host names, for a policy of another process."""

    hosts: tuple[HostMaterial, ...]
    default: HostMaterial | None
    private_ca: PublishedCa | None


def without_context(serving: ServedHost) -> HostMaterial:
    """The same without its context."""
    return HostMaterial(serving.host, serving.domain, serving.pair, serving.terms, serving.origin)


def material_of(
    served: ContextMap, tls: Tls, listeners: Mapping[Listener, Settings], private_ca: PublishedCa | None
) -> Material:
    """All of a map."""
    default = served.default
    return Material(
        tls,
        tuple(listeners.items()),
        tuple(map(without_context, served.by_host.values())),
        without_context(default) if default else None,
        private_ca,
    )


def assemble(material: Material, contexts: dict[ContextKey, SSL.Context]) -> ContextMap:
    """The map of material; `contexts` are those to use again. Raises: BadPair."""
    settings = settings_of(material.tls)

    def serving(served: HostMaterial) -> ServedHost:
        key = context_key(served.pair, served.terms)
        if key not in contexts:
            contexts[key] = make_context(served.pair, settings, served.terms)
        return ServedHost(served.host, served.domain, served.pair, served.terms, contexts[key], served.origin)

    by_host = {served.host: serving(served) for served in material.hosts}
    return ContextMap(MappingProxyType(by_host), serving(material.default) if material.default else None)
