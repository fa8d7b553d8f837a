"""The whole examination: every listener with every name and version.

The accepted versions depend on the listener and the settings, not on the name. So with very many names, those with equal
settings are tested once each, and one of them with every version.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from attrs import evolve, frozen
from cryptography.x509 import Certificate

from mailserver.config.model import Config
from mailserver.probe.chain import Trust, check_chain, common_name, days_left, fingerprint, key_words
from mailserver.probe.expectation import ALPN, FOREIGN, Certificates, Name, names, settings, versions
from mailserver.probe.finding import Finding
from mailserver.probe.handshake import VERSIONS, Shown, ask
from mailserver.probe.injection import try_all
from mailserver.probe.place import NotOffered, NotReached, Place, at_once, begin, invites_password
from mailserver.probe.place import places as all_places

KEY_TYPES: Final = {"RSA": b"aRSA", "ECDSA": b"aECDSA"}
"""TLS 1.2 suites that need such a key, in OpenSSL's notation."""
FULLY: Final = 100
"""Number of names above which not each is tested with every version."""
UNRECOGNIZED: Final = "unrecognized name"
NO_CERTIFICATE: Final = ("certificate required", "handshake failure")
"""OpenSSL's texts of the alerts that a client without a certificate may get."""


@frozen
class Row:
    """The result for one name at one listener address."""

    place: str
    tls: str
    """"implicit" or "STARTTLS"."""
    kind: str
    name: str
    versions: tuple[str, ...]
    """The accepted versions."""
    subject: str
    issuer: str
    key: str
    days: int | None
    chain: int
    """Number of certificates sent."""
    alpn: str


@frozen
class Report:
    """The results and the faults."""

    rows: list[Row]
    findings: list[Finding]


@frozen
class Test:
    """One name to be tested at one listener address."""

    place: Place
    name: Name
    versions: tuple[str, ...]


class Examination:
    """One examination of everything that a configuration serves."""

    def __init__(self, config: Config, trust: Trust, certificates: Certificates, now: dt.datetime) -> None:
        self._config = config
        self._trust = trust
        self._certificates = certificates
        self._now = now
        self._lost: dict[Place, Finding] = {}
        self._checked: dict[tuple[tuple[Certificate, ...], str], list[Finding]] = {}

    def run(
        self,
        hosts: Sequence[str] = (),
        *,
        fully: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Report:
        """Run all tests; with `hosts`, only for these, for an unknown name and without a name.

        `fully` tests every version, however many names there are. `progress(done, all)` is called after each name.
        """
        findings: list[Finding] = []
        rows: list[Row] = []
        for domain in self._config.domains_and_sites:
            # Read the files first, so that the threads only read the results.
            self._certificates.expected(domain)
        with ThreadPoolExecutor(at_once(self._config)) as pool:
            places = all_places(self._config)
            for found in pool.map(self._begin, places):
                findings += found
            tests = [test for place in self._reached(places) for test in self._tests(place, hosts, fully=fully)]
            for done, seen in enumerate(pool.map(self._try, tests), 1):
                if seen is not None:
                    rows.append(seen[0])
                    findings += seen[1]
                progress(done, len(tests))
            for found in pool.map(self._end, self._reached(places)):
                findings += found
        return Report(rows, [*findings, *self._lost.values(), *self._certificates.findings])

    def _reached(self, places: Iterable[Place]) -> list[Place]:
        return [place for place in places if place.has_tls and place not in self._lost]

    def _tests(self, place: Place, hosts: Sequence[str], *, fully: bool) -> Iterator[Test]:
        """Yield all names of a listener address, with the versions to test."""
        wanted = [
            name for name in names(self._config, place.listener) if not hosts or not name.host or name.host in hosts
        ]
        known: set[tuple[object, ...]] = set()
        for name in wanted:
            kind = (name.kind, *settings(name.domain))
            due = versions(self._config, place.listener, name.domain)
            alike = len(wanted) > FULLY and name.domain.second_certificate is None and kind in known
            known.add(kind)
            yield Test(place, name, (max(due),) if alike and due and not fully else tuple(VERSIONS))

    def _begin(self, place: Place) -> list[Finding]:
        """Check what the listener says before TLS."""
        try:
            return list(_before_tls(place) if place.has_tls else _is_there(place))
        except (NotReached, NotOffered) as error:
            self._lose(place, error)
            return []

    def _try(self, test: Test) -> tuple[Row, list[Finding]] | None:
        if test.place in self._lost:
            return None
        try:
            row, found = self._run_test(test)
        except (NotReached, NotOffered) as error:
            self._lose(test.place, error)
            return None
        return row, [evolve(each, place=str(test.place)) for each in found]

    def _end(self, place: Place) -> list[Finding]:
        """Check what the listener must refuse."""
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
        """Stop testing a listener address, with one finding for it."""
        if isinstance(error, NotReached):
            found = _at(place, "listener-down", f"it cannot be reached: {error}")
        else:
            found = _at(place, "starttls-not-offered", f"it does not start TLS: {error}")
        self._lost.setdefault(place, found)

    def _run_test(self, test: Test) -> tuple[Row, list[Finding]]:
        """Run one test. Raises: NotReached, NotOffered."""
        place, name = test.place, test.name
        own = ALPN[place.listener.family]
        seen = {version: ask(place, name.sent, version, own) for version in test.versions}
        if all(shown.fault for shown in seen.values()):
            # The newest version may fail where others do not.
            seen = {version: seen.get(version) or ask(place, name.sent, version, own) for version in VERSIONS}
        accepted = [version for version, shown in seen.items() if not shown.fault]
        findings = [*self._versions(place, name, seen)]
        best = next((shown for shown in reversed(seen.values()) if shown.chain), None)
        if best is not None:
            if name.domain.second_certificate is not None and "1.2" in accepted:
                for key_type, ciphers in KEY_TYPES.items():
                    shown = ask(place, name.sent, "1.2", own, ciphers=ciphers)
                    if shown.fault:
                        words = f"clients that support only {key_type} get no certificate, although two are configured"
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
        """Check that exactly the permitted versions are accepted."""
        due = versions(self._config, place.listener, name.domain) & seen.keys()
        subject = str(name)
        refused = {version: shown.fault for version, shown in seen.items() if shown.fault}
        if name.refused:
            for version in sorted(due):
                if version not in refused:
                    yield Finding(
                        "unknown-name-served",
                        subject,
                        "a name that no certificate covers is served, although unknown_name is refuse",
                    )
                    break
                if UNRECOGNIZED not in refused[version]:
                    words = f"an unknown name is refused without the alert unrecognized_name: {refused[version]}"
                    yield Finding("unknown-name-served", subject, words)
                    break
        elif due <= refused.keys() and not all(_is_demand(name, refused[version]) for version in due):
            code = "unknown-name-refused" if name.kind in ("unknown", "none") else "handshake-fails"
            yield Finding(code, subject, f"no handshake: {refused[max(due)]}")
        else:
            for version in sorted(due & refused.keys()):
                if not _is_demand(name, refused[version]):
                    code = "no-tls-1.3" if version == "1.3" else "version-refused"
                    yield Finding(code, subject, f"TLS {version} should be accepted: {refused[version]}")
        for version in sorted(seen.keys() - due - refused.keys()):
            code = "old-version" if due and version < min(due) else "version-not-allowed"
            yield Finding(code, subject, f"TLS {version} is accepted, which the configuration does not allow")

    def _shown_certificates(self, name: Name, seen: dict[str, Shown]) -> Iterator[Finding]:
        """Check each chain that was shown."""
        expected = self._certificates.expected(name.domain)
        for chain in dict.fromkeys(shown.chain for shown in seen.values() if shown.chain):
            host = name.sent if name.kind in ("exact", "wildcard") else None
            if name.refused:
                continue
            if host is not None:
                # Most listeners show the same chain.
                if (chain, host) not in self._checked:
                    self._checked[chain, host] = list(check_chain(chain, host, self._trust, self._now))
                yield from self._checked[chain, host]
            if expected is not None and fingerprint(chain[0]) not in expected:
                words = f"it shows the certificate of {common_name(chain[0].subject)}, not the one configured"
                if name.kind in ("unknown", "none"):
                    yield Finding("unknown-name-policy", str(name), f"{words} as default")
                else:
                    yield Finding(
                        "other-certificate",
                        str(name),
                        f"{words}: was the configuration reloaded, and what does the log say?",
                    )


def _at(place: Place, code: str, words: str, *, warning: bool = False) -> Finding:
    return Finding(code, str(place), words, warning, str(place))


def _is_there(place: Place) -> Iterator[Finding]:
    """Check a listener without TLS: only that it accepts connections."""
    try:
        with place.connected():
            pass
    except NotReached as error:
        yield _at(place, "listener-down", f"it cannot be reached: {error}")


def _before_tls(place: Place) -> Iterator[Finding]:
    """Check whether passwords are invited without TLS. Raises: NotReached, NotOffered."""
    listener = place.listener
    if listener.implicit_tls or listener.cleartext != "never":
        return
    with place.connected() as plain:
        offered = begin(plain, listener.family)
    if invites_password(offered, listener.family):
        yield _at(place, "password-in-clear", "it invites passwords before TLS: anybody on the path can read them")


def _is_demand(name: Name, fault: str) -> bool:
    """Does the handshake fail because the name requires a client certificate, which a probe does not have?"""
    return name.domain.client_certificates == "required" and any(words in fault for words in NO_CERTIFICATE)


def _protocol(place: Place, seen: list[Shown]) -> Iterator[Finding]:
    """Check the choice among the listener's own protocols offered by ALPN (RFC 7301)."""
    own = [each.decode() for each in ALPN[place.listener.family]]
    for alpn in dict.fromkeys(shown.alpn for shown in seen):
        if alpn not in own:
            words = f"it chooses {alpn}" if alpn else "it chooses nothing"
            yield Finding("wrong-alpn", str(place), f"of {' and '.join(own)}, offered by ALPN, {words}")


def _foreign_protocol(place: Place) -> Iterator[Finding]:
    """Check that a client of another protocol is refused (RFC 7301 3.2): attackers could redirect it here."""
    shown = ask(place, None, None, FOREIGN)
    if not shown.fault:
        yield _at(place, "wrong-alpn", f"a client that offers only {FOREIGN[0].decode()} is accepted")
