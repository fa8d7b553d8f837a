"""The whole look: every listener, each with every name and version, and what is to be found wrong.

Which versions are accepted follows from listener and settings, not from the name. So of very many names those that are
configured alike are asked for once each, and one of them with every version.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from attrs import evolve, frozen
from cryptography.x509 import Certificate

from mailserver.config.model import Config
from mailserver.probe.chain import Trust, common_name, days_left, fingerprint, judge, key_words
from mailserver.probe.expectation import ALPN, FOREIGN, Certificates, Name, names, settings, versions
from mailserver.probe.finding import Finding
from mailserver.probe.handshake import VERSIONS, Shown, ask
from mailserver.probe.injection import try_all
from mailserver.probe.place import NotOffered, NotReached, Place, at_once, begin, invites_password
from mailserver.probe.place import places as all_places

KEY_TYPES: Final = {"RSA": b"aRSA", "ECDSA": b"aECDSA"}
"""Suites of TLS 1.2 that only such a key can serve, in OpenSSL's notation."""
FULLY: Final = 100
"""Names; where there are more, not each is asked for with every version."""
UNRECOGNIZED: Final = "unrecognized name"
NO_CERTIFICATE: Final = ("certificate required", "handshake failure")
"""How OpenSSL words the alerts that a client without a certificate may get."""


@frozen
class Row:
    """One name at one place."""

    place: str
    tls: str
    """"implicit" or "STARTTLS"."""
    kind: str
    name: str
    versions: tuple[str, ...]
    """Accepted."""
    subject: str
    issuer: str
    key: str
    days: int | None
    chain: int
    """Certificates that were sent."""
    alpn: str


@frozen
class Report:
    """What was seen, and what of it is wrong."""

    rows: list[Row]
    findings: list[Finding]


@frozen
class Look:
    """One name that is to be asked for at one place."""

    place: Place
    name: Name
    versions: tuple[str, ...]


class Examination:
    """One look at all that a configuration serves."""

    def __init__(self, config: Config, trust: Trust, certificates: Certificates, now: dt.datetime) -> None:
        self._config = config
        self._trust = trust
        self._certificates = certificates
        self._now = now
        self._lost: dict[Place, Finding] = {}
        self._judged: dict[tuple[tuple[Certificate, ...], str], list[Finding]] = {}

    def run(
        self,
        hosts: Sequence[str] = (),
        *,
        fully: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Report:
        """Ask all. Only for these `hosts`, the name that nobody has, and none, if some are given.

        `fully`: with every version, however many names there are. `progress(done, all)` is called behind each name.
        """
        findings: list[Finding] = []
        rows: list[Row] = []
        for domain in self._config.domains_and_sites:
            # So that the threads only read what is known.
            self._certificates.expected(domain)
        with ThreadPoolExecutor(at_once(self._config)) as pool:
            places = all_places(self._config)
            for found in pool.map(self._begin, places):
                findings += found
            looks = [look for place in self._reached(places) for look in self._looks(place, hosts, fully=fully)]
            for done, seen in enumerate(pool.map(self._try, looks), 1):
                if seen is not None:
                    rows.append(seen[0])
                    findings += seen[1]
                progress(done, len(looks))
            for found in pool.map(self._end, self._reached(places)):
                findings += found
        return Report(rows, [*findings, *self._lost.values(), *self._certificates.findings])

    def _reached(self, places: Iterable[Place]) -> list[Place]:
        return [place for place in places if place.has_tls and place not in self._lost]

    def _looks(self, place: Place, hosts: Sequence[str], *, fully: bool) -> Iterator[Look]:
        """All names of a place, with the versions to ask for."""
        wanted = [
            name for name in names(self._config, place.listener) if not hosts or not name.host or name.host in hosts
        ]
        known: set[tuple[object, ...]] = set()
        for name in wanted:
            kind = (name.kind, *settings(name.domain))
            due = versions(self._config, place.listener, name.domain)
            alike = len(wanted) > FULLY and name.domain.second_certificate is None and kind in known
            known.add(kind)
            yield Look(place, name, (max(due),) if alike and due and not fully else tuple(VERSIONS))

    def _begin(self, place: Place) -> list[Finding]:
        """What is said before TLS."""
        try:
            return list(_before_tls(place) if place.has_tls else _is_there(place))
        except (NotReached, NotOffered) as error:
            self._lose(place, error)
            return []

    def _try(self, look: Look) -> tuple[Row, list[Finding]] | None:
        if look.place in self._lost:
            return None
        try:
            row, found = self._look(look)
        except (NotReached, NotOffered) as error:
            self._lose(look.place, error)
            return None
        return row, [evolve(each, place=str(look.place)) for each in found]

    def _end(self, place: Place) -> list[Finding]:
        """What must be refused."""
        try:
            findings = list(_foreign_protocol(place))
        except (NotReached, NotOffered) as error:
            self._lose(place, error)
            return []
        for verdict in try_all([place]):
            if verdict.state in ("executed", "swallowed"):
                words = f"cleartext sent {verdict.way} is {verdict.state}: {verdict.words}"
                findings.append(Finding("cleartext-behind-starttls", verdict.place, words, place=verdict.place))
        return findings

    def _lose(self, place: Place, error: NotReached | NotOffered) -> None:
        """The place is not asked any more, and has one finding for that."""
        if isinstance(error, NotReached):
            found = _at(place, "listener-down", f"it cannot be reached: {error}")
        else:
            found = _at(place, "starttls-not-offered", f"it does not start TLS: {error}")
        self._lost.setdefault(place, found)

    def _look(self, look: Look) -> tuple[Row, list[Finding]]:
        """Raises: NotReached, NotOffered."""
        place, name = look.place, look.name
        own = ALPN[place.listener.family]
        seen = {version: ask(place, name.sent, version, own) for version in look.versions}
        if all(shown.fault for shown in seen.values()):
            # What hinders the newest may not hinder the others.
            seen = {version: seen.get(version) or ask(place, name.sent, version, own) for version in VERSIONS}
        accepted = [version for version, shown in seen.items() if not shown.fault]
        findings = [*self._versions(place, name, seen)]
        best = next((shown for shown in reversed(seen.values()) if shown.chain), None)
        if best is not None:
            if name.domain.second_certificate is not None and "1.2" in accepted:
                for key_type, ciphers in KEY_TYPES.items():
                    shown = ask(place, name.sent, "1.2", own, ciphers=ciphers)
                    if shown.fault:
                        words = f"clients that can only use {key_type} get no certificate, though two are configured"
                        findings.append(Finding("second-certificate", str(name), f"{words}: {shown.fault}"))
                    seen[f"1.2 {key_type}"] = shown
            findings += self._shown_certificates(name, seen)
            findings += _protocol(place, [seen[version] for version in accepted])
        certificate = best.chain[0] if best is not None else None
        return (
            Row(
                str(place),
                "implicit" if place.listener.implicit_tls else "STARTTLS",
                name.kind,
                str(name),
                tuple(accepted),
                common_name(certificate.subject) if certificate is not None else "",
                common_name(certificate.issuer) if certificate is not None else "",
                key_words(certificate) if certificate is not None else "",
                days_left(certificate, self._now) if certificate is not None else None,
                len(best.chain) if best is not None else 0,
                best.alpn if best is not None else "",
            ),
            findings,
        )

    def _versions(self, place: Place, name: Name, seen: dict[str, Shown]) -> Iterator[Finding]:
        """Is that accepted which ought to be, and nothing else?"""
        due = versions(self._config, place.listener, name.domain) & seen.keys()
        subject = str(name)
        refused = {version: shown.fault for version, shown in seen.items() if shown.fault}
        if name.refused:
            for version in sorted(due):
                if version not in refused:
                    yield Finding(
                        "unknown-name-served",
                        subject,
                        "a name that no certificate covers is served, though unknown_name is refuse",
                    )
                    break
                if UNRECOGNIZED not in refused[version]:
                    words = f"an unknown name is not refused by the alert unrecognized_name: {refused[version]}"
                    yield Finding("unknown-name-served", subject, words)
                    break
        elif due <= refused.keys() and not all(_is_demand(name, refused[version]) for version in due):
            code = "unknown-name-refused" if name.kind in ("unknown", "none") else "handshake-fails"
            yield Finding(code, subject, f"no handshake: {refused[max(due)]}")
        else:
            for version in sorted(due & refused.keys()):
                if not _is_demand(name, refused[version]):
                    code = "no-tls-1.3" if version == "1.3" else "version-refused"
                    yield Finding(code, subject, f"TLS {version} ought to be accepted: {refused[version]}")
        for version in sorted(seen.keys() - due - refused.keys()):
            code = "old-version" if due and version < min(due) else "version-not-allowed"
            yield Finding(code, subject, f"TLS {version} is accepted, which the configuration does not allow")

    def _shown_certificates(self, name: Name, seen: dict[str, Shown]) -> Iterator[Finding]:
        """Each chain that was shown."""
        expected = self._certificates.expected(name.domain)
        for chain in dict.fromkeys(shown.chain for shown in seen.values() if shown.chain):
            host = name.sent if name.kind in ("exact", "wildcard") else None
            if name.refused:
                continue
            if host is not None:
                # The same at every listener, mostly.
                if (chain, host) not in self._judged:
                    self._judged[chain, host] = list(judge(chain, host, self._trust, self._now))
                yield from self._judged[chain, host]
            if expected is not None and fingerprint(chain[0]) not in expected:
                words = f"it shows the certificate of {common_name(chain[0].subject)}, not the one configured"
                if name.kind in ("unknown", "none"):
                    yield Finding("unknown-name-policy", str(name), f"{words} as default")
                else:
                    yield Finding(
                        "other-certificate", str(name), f"{words}: is the reload done, and what does the log say?"
                    )


def _at(place: Place, code: str, words: str, *, warning: bool = False) -> Finding:
    return Finding(code, str(place), words, warning, str(place))


def _is_there(place: Place) -> Iterator[Finding]:
    """Of a listener without TLS no more can be said."""
    try:
        with place.connected():
            pass
    except NotReached as error:
        yield _at(place, "listener-down", f"it cannot be reached: {error}")


def _before_tls(place: Place) -> Iterator[Finding]:
    """Is a password invited without TLS? Raises: NotReached, NotOffered."""
    listener = place.listener
    if listener.implicit_tls or listener.cleartext != "never":
        return
    with place.connected() as plain:
        offered = begin(plain, listener.family)
    if invites_password(offered, listener.family):
        yield _at(place, "password-in-clear", "it invites passwords before TLS: anybody on the way can read them")


def _is_demand(name: Name, fault: str) -> bool:
    """Does the handshake end because the name requires a client's certificate, which a probe has not?"""
    return name.domain.client_certificates == "required" and any(words in fault for words in NO_CERTIFICATE)


def _protocol(place: Place, seen: list[Shown]) -> Iterator[Finding]:
    """What came of offering its own protocols by ALPN (RFC 7301)."""
    own = [each.decode() for each in ALPN[place.listener.family]]
    for alpn in dict.fromkeys(shown.alpn for shown in seen):
        if alpn not in own:
            words = f"it chooses {alpn}" if alpn else "it chooses nothing"
            yield Finding("wrong-alpn", str(place), f"of {' and '.join(own)}, offered by ALPN, {words}")


def _foreign_protocol(place: Place) -> Iterator[Finding]:
    """A client of another protocol must be turned away (RFC 7301 3.2), or it can be led here."""
    shown = ask(place, None, None, FOREIGN)
    if not shown.fault:
        yield _at(place, "wrong-alpn", f"a client that speaks only {FOREIGN[0].decode()} is let in")
