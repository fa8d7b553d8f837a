"""The whole look: every listener, each with every name and version, and what is to be found wrong."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import evolve, frozen

from mailserver.config.model import Config
from mailserver.probe.chain import Trust, common_name, days_left, fingerprint, judge, key_words
from mailserver.probe.expectation import ALPN, FOREIGN, Certificates, Name, names, versions
from mailserver.probe.finding import Finding
from mailserver.probe.handshake import VERSIONS, Shown, ask
from mailserver.probe.injection import try_all
from mailserver.probe.place import NotOffered, NotReached, Place, begin, invites_password
from mailserver.probe.place import places as all_places

KEY_TYPES: Final = {"RSA": b"aRSA", "ECDSA": b"aECDSA"}
"""Suites of TLS 1.2 that only such a key can serve, in OpenSSL's notation."""
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


class Examination:
    """One look at all that a configuration serves."""

    def __init__(self, config: Config, trust: Trust, certificates: Certificates, now: dt.datetime) -> None:
        self._config = config
        self._trust = trust
        self._certificates = certificates
        self._now = now

    def run(self, hosts: Sequence[str] = ()) -> Report:
        """Ask all. Only for these `hosts`, the name that nobody has, and none, if some are given."""
        rows: list[Row] = []
        findings: list[Finding] = []
        reached: list[Place] = []
        for place in all_places(self._config):
            if not place.listener.implicit_tls and not place.listener.starttls:
                findings += _is_there(place)
                continue
            try:
                findings += _before_tls(place)
                for name in names(self._config, place.listener):
                    if hosts and name.host and name.host not in hosts:
                        continue
                    row, found = self._look(place, name)
                    rows.append(row)
                    findings += (evolve(each, place=str(place)) for each in found)
                findings += _foreign_protocol(place)
                reached.append(place)
            except NotReached as error:
                findings.append(_at(place, "listener-down", f"it cannot be reached: {error}"))
            except NotOffered as error:
                findings.append(_at(place, "starttls-not-offered", f"it does not start TLS: {error}"))
        for verdict in try_all(reached):
            if verdict.state in ("executed", "swallowed"):
                words = f"cleartext sent {verdict.way} is {verdict.state}: {verdict.words}"
                findings.append(Finding("cleartext-behind-starttls", verdict.place, words, place=verdict.place))
        return Report(rows, [*findings, *self._certificates.findings])

    def _look(self, place: Place, name: Name) -> tuple[Row, list[Finding]]:
        """Every version of one name. Raises: NotReached, NotOffered."""
        own = ALPN[place.listener.family]
        seen = {version: ask(place, name.sent, version, own) for version in VERSIONS}
        accepted = [version for version, shown in seen.items() if not shown.fault]
        findings = [*self._versions(place, name, seen)]
        best = next((seen[version] for version in reversed(VERSIONS) if seen[version].chain), None)
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
        due = versions(self._config, place.listener, name.domain)
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
            code = "old-version" if version < min(due) else "version-not-allowed"
            yield Finding(code, subject, f"TLS {version} is accepted, which the configuration does not allow")

    def _shown_certificates(self, name: Name, seen: dict[str, Shown]) -> Iterator[Finding]:
        """Each chain that was shown."""
        expected = self._certificates.expected(name.domain)
        for chain in dict.fromkeys(shown.chain for shown in seen.values() if shown.chain):
            host = name.sent if name.kind in ("exact", "wildcard") else None
            if name.refused:
                continue
            if host is not None:
                yield from judge(chain, host, self._trust, self._now)
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
