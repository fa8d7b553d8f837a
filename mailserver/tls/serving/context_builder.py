"""The map that a configuration leads to, each host name by itself, and what became of each.

What cannot be served is refused for that name alone: its last good certificate stays, or something stands in for it.
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
from mailserver.tls.context.contexts import ContextKey, ContextMap, Origin, ServedHost, Terms, context_key, make_context
from mailserver.tls.context.settings import settings_of
from mailserver.tls.keypair.pair import BadPair, Fault, Pair
from mailserver.tls.serving.source import Candidate, Source


@frozen
class Outcome:
    """What became of one host name, or of the settings of [tls], at a reload."""

    name: str
    state: Literal["taken up", "unchanged", "removed", "refused"]
    why: str = ""
    """For "refused" what is wrong; else warnings, if any."""

    def __str__(self) -> str:
        return f"{self.name}: {self.state}{': ' if self.why else ''}{self.why}"


def in_words(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each that has changed or has a warning, and one for how many have not."""
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
    """The map of a configuration, and what became of each host; `contexts` are those to use again.

    `keep_bases`: hosts that are in `old` take up no terms that would need another base.
    """
    settings = settings_of(tls)

    def context_of(pair: Pair, terms: Terms) -> SSL.Context:
        key = context_key(pair, terms)
        if key not in contexts:
            contexts[key] = make_context(pair, settings, terms)
        return contexts[key]

    by_host: dict[str, ServedHost] = {}
    outcomes = []
    hosts = [host for domain in config.certified for host in domain.hosts]
    for domain in config.certified:
        find = source.read(domain, now, tls)
        for host in domain.hosts:
            last = old.by_host.get(host)
            found = find(host)
            if keep_bases and last is not None:
                found = _on_base_of(last, found)
            pair, faults = _judged(found, context_of)
            why = _objection(host, pair, faults, last, now)
            if pair is not None and not why:
                context = context_of(pair, found.terms)
                by_host[host] = ServedHost(host, domain.name, pair, found.terms, context, found.origin)
            elif last is not None:
                # What it asked of its clients stays with its certificate.
                origin: Origin = "last good" if last.origin == "file" else last.origin
                context = context_of(last.pair, last.terms)
                by_host[host] = attrs.evolve(last, domain=domain.name, context=context, origin=origin)
            elif (instead := source.fallback(domain, host, found)) is not None and instead.pair is not None:
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
        # Clients without a name must not be turned away for a bad new file.
        default = attrs.evolve(old.default, context=context_of(old.default.pair, old.default.terms))
        outcomes.append(Outcome("[tls] default", "refused", f"{wanted or 'no host'} cannot be served; the last stays"))
    return ContextMap(MappingProxyType(by_host), default), outcomes


def _on_base_of(last: ServedHost, found: Candidate) -> Candidate:
    """What was found, on the terms of before where its own would need another base."""
    if found.terms.resumable == last.terms.resumable:
        return found
    waits = Fault("client_certificates", "other terms than before wait for `mailserver reload`", warning=True)
    terms = attrs.evolve(last.terms, second=found.terms.second)
    return attrs.evolve(found, terms=terms, faults=[*found.faults, waits])


def default_host(config: Config) -> str:
    """The host whose certificate is served without a name: the configured one, else the first of all."""
    return config.tls.default or next((host for domain in config.domains for host in domain.hosts), "")


def _judged(found: Candidate, context_of: Callable[[Pair, Terms], SSL.Context]) -> tuple[Pair | None, list[Fault]]:
    """What was found for a host, with everything that is wrong of it."""
    faults = list(found.faults)
    if found.pair is not None and all(fault.warning or fault.key == "hosts" for fault in faults):
        try:
            context_of(found.pair, found.terms)
        except BadPair as bad:
            return None, [*faults, *bad.faults]
    return found.pair, faults


def _objection(host: str, pair: Pair | None, faults: list[Fault], last: ServedHost | None, now: dt.datetime) -> str:
    """Why a host cannot be served under a new pair, or "". Faults of other hosts of the domain do not count."""
    against = [f"{fault.key} {fault.reason}" for fault in faults if not fault.warning and fault.value in ("", host)]
    if pair is not None and not pair.is_current(now) and last is not None and last.pair.is_current(now):
        # Better the one that clients still take.
        against += [fault.reason for fault in pair.date_faults(now)]
    return "; ".join(against)
