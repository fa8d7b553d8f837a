"""Building the context map of a configuration, with the result for each host name.

A name that cannot be served is refused by itself: its last good certificate stays, or a fallback is served.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Literal

import attrs
from attrs import frozen
from OpenSSL import SSL

from mailserver.config.model import Config, Tls
from mailserver.tls.context.context_map import ContextKey, ContextMap, Origin, ServedHost, Terms, context_key
from mailserver.tls.context.contexts import make_context
from mailserver.tls.context.settings import settings_of
from mailserver.tls.keypair.pair import BadPair, Pair
from mailserver.tls.keypair.pem import Fault
from mailserver.tls.serving.source import Candidate, Source


@frozen
class Outcome:
    """The result of a reload for one host name, or for the settings of [tls]."""

    name: str
    state: Literal["taken up", "unchanged", "removed", "refused"]
    why: str = ""
    """The faults for "refused"; otherwise warnings, if any."""

    def __str__(self) -> str:
        return f"{self.name}: {self.state}{': ' if self.why else ''}{self.why}"


def in_words(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each change or warning, and one with the number of unchanged names."""
    quiet = sum(outcome.state == "unchanged" and not outcome.why for outcome in outcomes)
    lines = [str(outcome) for outcome in outcomes if outcome.state != "unchanged" or outcome.why]
    return [*lines, f"certificates unchanged: {quiet}"] if quiet else lines


def build(
    config: Config,
    tls: Tls,
    old: ContextMap,
    contexts: dict[ContextKey, SSL.Context],
    *,
    now: dt.datetime,
    source: Source,
    keep_bases: bool = False,
) -> tuple[ContextMap, list[Outcome]]:
    """Build the map of a configuration, with the result for each host; `contexts` are reused.

    With `keep_bases`, hosts in `old` keep their terms if new ones would need another base context.
    """
    settings = settings_of(tls)

    def context_of(pair: Pair, terms: Terms) -> SSL.Context:
        key = context_key(pair, terms)
        if key not in contexts:
            contexts[key] = make_context(pair, settings, terms)
        return contexts[key]

    by_host: dict[str, ServedHost] = {}
    outcomes = []
    hosts = [host for domain in config.domains_and_sites for host in domain.hosts]
    for domain in config.domains_and_sites:
        find = source.read(domain, now, tls)
        for host in domain.hosts:
            last = old.by_host.get(host)
            candidate = find(host)
            if keep_bases and last is not None:
                candidate = _on_same_base(last, candidate)
            pair, faults = _validated(candidate, context_of)
            why = _reason_to_refuse(host, pair, faults, last, now)
            if pair is not None and not why:
                context = context_of(pair, candidate.terms)
                by_host[host] = ServedHost(host, domain.name, pair, candidate.terms, context, candidate.origin)
            elif last is not None:
                # Its demand for client certificates stays with its certificate.
                origin: Origin = "last good" if last.origin == "file" else last.origin
                context = context_of(last.pair, last.terms)
                by_host[host] = attrs.evolve(last, domain=domain.name, context=context, origin=origin)
            elif (instead := source.fallback(domain, host, candidate)) is not None and instead.pair is not None:
                context = context_of(instead.pair, instead.terms)
                by_host[host] = ServedHost(host, domain.name, instead.pair, instead.terms, context, instead.origin)
                why += f"; served meanwhile: {instead.origin}"
            if why:
                outcomes.append(Outcome(host, "refused", why))
            else:
                same = last is not None and by_host[host].key == last.key
                warnings = "; ".join(fault.reason for fault in faults if fault.warning)
                outcomes.append(Outcome(host, "unchanged" if same else "taken up", warnings))
    outcomes += [Outcome(host, "removed") for host in old.by_host if host not in hosts]
    wanted = default_host(config)
    default = by_host.get(wanted)
    if default is None and old.default is not None:
        # A bad new file must not shut out clients that send no name.
        default = attrs.evolve(old.default, context=context_of(old.default.pair, old.default.terms))
        outcomes.append(Outcome("[tls] default", "refused", f"{wanted or 'no host'} cannot be served; the last stays"))
    return ContextMap(MappingProxyType(by_host), default), outcomes


def _on_same_base(last: ServedHost, candidate: Candidate) -> Candidate:
    """Give a candidate the previous terms if its own would need another base context."""
    if candidate.terms.resumable == last.terms.resumable:
        return candidate
    waits = Fault("client_certificates", "has changed: the new terms apply after `mailserver reload`", warning=True)
    terms = attrs.evolve(last.terms, second=candidate.terms.second)
    return attrs.evolve(candidate, terms=terms, faults=[*candidate.faults, waits])


def default_host(config: Config) -> str:
    """Return the host for clients that send no name: the configured one, or the first of all."""
    return config.tls.default or next((host for domain in config.domains for host in domain.hosts), "")


def _validated(
    candidate: Candidate, context_of: Callable[[Pair, Terms], SSL.Context]
) -> tuple[Pair | None, list[Fault]]:
    """Have OpenSSL check a candidate; return its pair, if usable, and all faults."""
    faults = list(candidate.faults)
    if candidate.pair is not None and all(fault.warning or fault.key == "hosts" for fault in faults):
        try:
            context_of(candidate.pair, candidate.terms)
        except BadPair as bad:
            return None, [*faults, *bad.faults]
    return candidate.pair, faults


def _reason_to_refuse(
    host: str, pair: Pair | None, faults: list[Fault], last: ServedHost | None, now: dt.datetime
) -> str:
    """Say why a host cannot be served with a new pair; "" if it can. Faults of the domain's other hosts do not count."""
    against = [f"{fault.key} {fault.reason}" for fault in faults if not fault.warning and fault.value in ("", host)]
    if pair is not None and not pair.is_current(now) and last is not None and last.pair.is_current(now):
        # The previous certificate is still valid for clients.
        against += [fault.reason for fault in pair.date_faults(now)]
    return "; ".join(against)
