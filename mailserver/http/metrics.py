"""/metrics: the numbers of all workers in Prometheus' text format, whichever worker is asked.

Counts are since the server's start: those of workers that have ended are among them, so they never go back.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from attrs import frozen
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from mailserver.http.messages import Request, Response, Route, Status
from mailserver.http.services import HttpServices, Trust
from mailserver.session.cost import Cost

_MAIL: Final = ("imap", "pop3", "submission", "lmtp")
_USERS: Final = ("imap", "pop3", "submission")
_ALL: Final = (*_MAIL, "http")
_TLS: Final = ("implicit", "STARTTLS")


@frozen
class Count:
    """One kind of event."""

    name: str
    words: str
    families: tuple[str, ...] = _ALL
    """Protocols, without their TLS kind, in which it happens."""
    before_tls: bool = False
    """It happens before TLS is there, which is then counted as "none"."""
    kinds: tuple[str, ...] = ("implicit", "STARTTLS", "none")
    """How the listener begins TLS."""


COUNTERS: Final = {
    "connection": Count("connections", "Connections that were accepted.", before_tls=True),
    "connection-refused": Count(
        "connections_refused", "Connections refused by a limit, but for those the log left out.", before_tls=True
    ),
    "handshake": Count("tls_handshakes", "TLS handshakes that were completed.", kinds=_TLS),
    "tls-failed": Count("tls_failures", "TLS handshakes that failed.", before_tls=True, kinds=_TLS),
    "cleartext-at-tls-port": Count(
        "cleartext_at_tls_port",
        "Clients that did not begin TLS at a port of implicit TLS.",
        before_tls=True,
        kinds=("implicit",),
    ),
    "tls-at-starttls-port": Count(
        "tls_at_starttls_port",
        "Clients that began TLS at a port of STARTTLS and were refused.",
        before_tls=True,
        kinds=("STARTTLS",),
    ),
    "cleartext-login": Count(
        "cleartext_logins",
        "Passwords that came in clear text and were refused, right or not.",
        _USERS,
        before_tls=True,
        kinds=("STARTTLS",),
    ),
    "password-exposed": Count(
        "passwords_exposed", "Those that were checked and right.", _USERS, before_tls=True, kinds=("STARTTLS",)
    ),
    "login": Count("logins", "Logins.", _USERS),
    "login-failed": Count("login_failures", "Logins that were refused.", _USERS),
    "delivery": Count("deliveries", "Messages delivered, one for each recipient.", ("lmtp",)),
    "delivery-failed": Count("delivery_failures", "Deliveries refused.", ("lmtp",)),
    "submission": Count("submissions", "Messages taken from users.", ("submission",)),
    "submission-refused": Count("submission_refusals", "Messages of users that were refused.", ("submission",)),
    "relay-failed": Count("relay_failures", "Messages that the next hop did not take.", ("submission",)),
    "request": Count("http_requests", "HTTP requests that were answered.", ("http",)),
    "http-request": Count("http_at_mail_port", "HTTP requests at the port of a mail protocol.", _MAIL, before_tls=True),
    "storage-failed": Count("storage_failures", "Commands that the storage did not let do their work.", _MAIL),
    "bug": Count("bugs", "Commands that failed in an unforeseen way."),
}
"""Event of the log, and the number kept of it: by protocol and TLS version."""

VERSIONS: Final = ("TLSv1.2", "TLSv1.3")

FILLS: Final = {
    "accounts_in_use": ("accounts_open", "Accounts with a session."),
    "accounts_kept": ("accounts_kept", "Accounts that stay open without one."),
    "indexes": ("indexes_open", "Indexes that are open."),
    "mailboxes_in_use": ("mailboxes_open", "Mailboxes that a session has open."),
    "messages_in_use": ("messages_open", "Messages of those mailboxes."),
    "mailboxes_kept": ("mailboxes_kept", "Mailboxes in memory without a session."),
    "messages_kept": ("messages_kept", "Messages of those mailboxes."),
    "message_octets": ("message_octets", "Octets of messages that stay in memory after they were read."),
    "recent_octets": ("recent_octets", "The old name of mailserver_message_octets, until the next release."),
    "files_kept": ("files_kept", "Message files that stay open after they were read."),
    "commands_known": ("commands_known", "Command texts of IMAP whose meaning is remembered."),
    "hashes_running": ("password_checks_running", "Password hashes being checked."),
    "hashes_waiting": ("password_checks_waiting", "Password checks that wait."),
    "mailboxes_read_apart": ("mailboxes_read_apart", "Mailboxes with very many new files that are being read."),
    "penalties": ("penalties", "Pairs of user and network that wait for their failed logins."),
    "known_networks": ("known_networks", "Pairs of user and network that a login has come from."),
    "memory": ("memory_bytes", "Memory of a worker that is in RAM."),
    "descriptors": ("open_descriptors", "Open file descriptors."),
}
"""Number of a worker's status, and the gauge made of it; [number, bound] gives two."""


class Numbers(Collector):
    """The families of one status, and of the own authority."""

    def __init__(self, status: Status, trust: Trust | None, now: dt.datetime) -> None:
        self._status = status
        self._trust = trust
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from _counters(self._status)
        yield from _sessions(self._status)
        yield from _workers(self._status)
        yield from _certificates(self._status)
        if self._trust is not None:
            yield from _authority(self._trust, self._now)


def _counters(status: Status) -> Iterator[Metric]:
    counted = dict.fromkeys(_at_first(status["listeners"]), 0)
    counted |= {(event, protocol, tls): number for event, protocol, tls, number in status["event_counters"]}
    families = {
        event: CounterMetricFamily(f"mailserver_{count.name}", count.words, labels=("protocol", "tls"))
        for event, count in COUNTERS.items()
    }
    for (event, protocol, tls), number in sorted(counted.items()):
        if event in families:
            families[event].add_metric((protocol, tls), number)
    yield from families.values()
    restarts = CounterMetricFamily("mailserver_worker_restarts", "Workers that ended and were replaced.")
    restarts.add_metric((), status["restarts"])
    yield restarts
    marked = "Users whose password has come in clear text, until `mailserver exposures clear`."
    yield GaugeMetricFamily("mailserver_exposed_users", marked, value=status["exposures"])


def _at_first(listeners: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """What can be counted at these listeners: a number that begins at 1 has no rate at first."""
    for listener in listeners:
        protocol, tls = listener["protocol"], listener["tls"]
        family = protocol.removesuffix("s") if tls == "implicit" else protocol
        secured = VERSIONS if tls != "none" else ()
        plain = ("none",) if tls == "none" or listener["cleartext"] or family == "lmtp" else ()
        for event, count in COUNTERS.items():
            if family in count.families and tls in count.kinds:
                states = ("none",) if count.before_tls else secured if event == "handshake" else (*secured, *plain)
                for state in states:
                    yield event, protocol, state


def _sessions(status: Status) -> Iterator[Metric]:
    """By protocol and TLS version; a listener's protocol without any has 0."""
    open_sessions: Counter[tuple[str, str]] = Counter()
    logged_in = 0
    for listener in status["listeners"]:
        open_sessions[listener["protocol"], "none"] += 0
    for worker in _answering(status):
        logged_in += worker["sessions"]["logged_in"]
        for protocol, tls, number in worker["sessions"]["by_tls"]:
            open_sessions[protocol, tls] += number
    family = GaugeMetricFamily("mailserver_sessions", "Open connections.", labels=("protocol", "tls"))
    for labels, number in sorted(open_sessions.items()):
        family.add_metric(labels, number)
    yield family
    yield GaugeMetricFamily("mailserver_sessions_logged_in", "Those that have logged in.", value=logged_in)


def _workers(status: Status) -> Iterator[Metric]:
    states: Counter[str] = Counter({"starting": 0, "serving": 0, "retiring": 0})
    for worker in status["workers"]:
        states[worker.get("state", "serving")] += 1
    family = GaugeMetricFamily("mailserver_workers", "Worker processes.", labels=("state",))
    for state, number in sorted(states.items()):
        family.add_metric((state,), number)
    yield family
    silent = sum(not worker["answers"] for worker in status["workers"])
    yield GaugeMetricFamily("mailserver_workers_silent", "Workers that do not answer.", value=silent)
    for key, (name, words) in FILLS.items():
        filled = GaugeMetricFamily(f"mailserver_{name}", words, labels=("worker",))
        most = GaugeMetricFamily(f"mailserver_{name}_limit", f"The most there may be: {words}", labels=("worker",))
        for worker in _answering(status):
            label = str(worker["worker"])
            match worker.get(key):
                case [number, bound]:
                    filled.add_metric((label,), number)
                    most.add_metric((label,), bound)
                case int(number):
                    filled.add_metric((label,), number)
        yield filled
        if most.samples:
            yield most


def _certificates(status: Status) -> Iterator[Metric]:
    family = GaugeMetricFamily(
        "mailserver_certificate_days_left", "Whole days until the certificate of a host name ends.", labels=("host",)
    )
    words = "The least of 30, 14, 7, 1 and 0 days that a certificate has no more than; absent where it has more."
    warnings = GaugeMetricFamily("mailserver_certificate_warning_days", words, labels=("host",))
    for certificate in status["certificates"]:
        family.add_metric((certificate["host"],), certificate["days_left"])
        if certificate["warning"] is not None:
            warnings.add_metric((certificate["host"],), certificate["warning"])
    yield family
    yield warnings
    words = "Attempts in a row that have brought no certificate from the ACME authority."
    failures = GaugeMetricFamily("mailserver_acme_failures", words, labels=("host",))
    for row in status["acme"]:
        failures.add_metric((row["host"],), row["failures"])
    yield failures


def _authority(trust: Trust, now: dt.datetime) -> Iterator[Metric]:
    words = "Whole days until the certificate of the own authority ends."
    yield GaugeMetricFamily("mailserver_private_ca_days_left", words, value=(trust.not_after - now).days)
    if trust.crl_not_after is not None:
        words = "Whole days until its revocation list ends, after which no user's certificate is taken."
        yield GaugeMetricFamily("mailserver_private_ca_crl_days_left", words, value=(trust.crl_not_after - now).days)


def _answering(status: Status) -> list[Mapping[str, Any]]:
    return [worker for worker in status["workers"] if worker["answers"]]


async def answer(_request: Request, services: HttpServices) -> Response:
    """The page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Numbers(await services.query_status(), services.trust(), dt.datetime.now(dt.UTC)))
    return Response(200, generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)


ROUTES: Final = (Route("/metrics", answer, watched=True, cost=Cost("counters times workers")),)
