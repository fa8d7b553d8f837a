"""/metrics: the numbers of all workers in Prometheus' text format; every worker gives the same answer.

Counters start at zero with the server. They include workers that have ended, so they never decrease.
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

from mailserver.http.messages import Request, Response, Status
from mailserver.http.route import Route
from mailserver.http.services import HttpServices, PublishedAuthority
from mailserver.session.cost import Cost

_MAIL: Final = ("imap", "pop3", "submission", "lmtp")
_USERS: Final = ("imap", "pop3", "submission")
_LOGINS: Final = (*_USERS, "auth")
_LOGS_IN: Final = (*_USERS, "http")
_ALL: Final = (*_MAIL, "auth", "lookup", "http")
_TLS: Final = ("implicit", "STARTTLS")


@frozen
class EventCounter:
    """The counter of one kind of event."""

    name: str
    help: str
    families: tuple[str, ...] = _ALL
    """Protocols in which the event occurs, without their TLS kind."""
    before_tls: bool = False
    """Does it occur before TLS is established? It is then counted as "none"."""
    kinds: tuple[str, ...] = ("implicit", "STARTTLS", "none")
    """TLS kinds of the listeners at which it occurs."""


COUNTERS: Final = {
    "connection": EventCounter("connections", "Accepted connections.", before_tls=True),
    "connection-refused": EventCounter(
        "connections_refused", "Connections refused by a limit, without those that the log omits.", before_tls=True
    ),
    "connection-banned": EventCounter(
        "connections_banned", "Connections of banned clients, refused or ended.", _LOGS_IN, before_tls=True
    ),
    "handshake": EventCounter("tls_handshakes", "Completed TLS handshakes.", kinds=_TLS),
    "tls-failed": EventCounter("tls_handshake_failures", "Failed TLS handshakes.", before_tls=True, kinds=_TLS),
    "cleartext-at-tls-port": EventCounter(
        "cleartext_at_tls_port",
        "Clients that sent clear text to a port of implicit TLS.",
        before_tls=True,
        kinds=("implicit",),
    ),
    "tls-at-starttls-port": EventCounter(
        "tls_at_starttls_port",
        "Clients that started TLS at a STARTTLS port without the command, and were refused.",
        before_tls=True,
        kinds=("STARTTLS",),
    ),
    "cleartext-login": EventCounter(
        "cleartext_logins",
        "Passwords sent in clear text, all refused, right or wrong.",
        _USERS,
        before_tls=True,
        kinds=("STARTTLS",),
    ),
    "password-exposed": EventCounter(
        "passwords_exposed",
        "Correct passwords among those sent in clear text.",
        _USERS,
        before_tls=True,
        kinds=("STARTTLS",),
    ),
    "login": EventCounter("logins", "Logins.", _LOGINS),
    "login-failed": EventCounter("login_failures", "Refused logins.", _LOGINS),
    "delivery": EventCounter("deliveries", "Messages delivered, one for each recipient.", ("lmtp",)),
    "delivery-failed": EventCounter("delivery_failures", "Refused deliveries.", ("lmtp",)),
    "submission": EventCounter("submissions", "Messages accepted from users.", ("submission",)),
    "submission-refused": EventCounter("submission_refusals", "Refused messages of users.", ("submission",)),
    "relay-failed": EventCounter("relay_failures", "Messages refused by the next hop.", ("submission",)),
    "request": EventCounter("http_requests", "Answered HTTP requests.", ("http",)),
    "http-request": EventCounter(
        "http_requests_at_mail_port", "HTTP requests at the port of a mail protocol.", _MAIL, before_tls=True
    ),
    "storage-failed": EventCounter("storage_failures", "Commands that failed because of the storage.", _MAIL),
    "quota-refused": EventCounter(
        "quota_refusals", "Messages and folders refused for the quota of an account.", ("imap", "submission", "lmtp")
    ),
    "bug": EventCounter("internal_errors", "Commands that failed because of an unexpected error."),
}
"""Event of the log -> its counter, by protocol and TLS version."""

VERSIONS: Final = ("TLSv1.2", "TLSv1.3")

GAUGES: Final = {
    "accounts_in_use": ("accounts_open", "Accounts with a session."),
    "accounts_kept": ("accounts_cached", "Accounts that stay open without a session."),
    "indexes": ("indexes_open", "Open indexes."),
    "mailboxes_in_use": ("mailboxes_open", "Mailboxes that a session has selected."),
    "messages_in_use": ("messages_open", "Messages of selected mailboxes."),
    "mailboxes_kept": ("mailboxes_cached", "Mailboxes in memory without a session."),
    "messages_kept": ("messages_cached", "Messages of cached mailboxes."),
    "message_octets": ("message_cache_bytes", "Size of the messages in memory."),
    "files_kept": ("message_files_open", "Message files that stay open after they were read."),
    "commands_known": ("commands_cached", "Parsed IMAP commands in memory."),
    "hashes_running": ("password_checks_running", "Password checks in progress."),
    "hashes_waiting": ("password_checks_waiting", "Waiting password checks."),
    "mailboxes_read_apart": ("mailbox_scans_running", "Mailboxes with very many new files that are being scanned."),
    "maintenance_due": ("maintenance_accounts_due", "Accounts whose index or text index may need maintenance."),
    "maintenance_milliseconds": ("maintenance_cpu_milliseconds", "Processor time that maintenance has taken."),
    "session_octets": ("session_memory_bytes", "Memory taken since the start, for connections and accounts."),
    "penalties": ("login_penalties", "Pairs of user and network that are delayed after failed logins."),
    "known_networks": ("known_networks", "Networks with a successful login, and pairs of user and network."),
    "memory": ("resident_memory_bytes", "Resident memory of a worker."),
    "descriptors": ("open_fds", "Open file descriptors."),
}
"""Key in a worker's status -> its gauge; [number, bound] gives two."""

OLD_NAMES: Final = {
    "accounts_cached": "accounts_kept",
    "commands_cached": "commands_known",
    "http_requests_at_mail_port": "http_at_mail_port",
    "internal_errors": "bugs",
    "login_penalties": "penalties",
    "mailbox_scans_running": "mailboxes_read_apart",
    "mailboxes_cached": "mailboxes_kept",
    "message_cache_bytes": "recent_octets",
    "message_files_open": "files_kept",
    "messages_cached": "messages_kept",
    "open_fds": "open_descriptors",
    "resident_memory_bytes": "memory_bytes",
    "tls_handshake_failures": "tls_failures",
    "workers_unresponsive": "workers_silent",
}
"""Metric -> its old name, without `mailserver_` and suffixes; shown beside it until the next release."""


class Numbers(Collector):
    """Metrics of one status, and of the private authority."""

    def __init__(self, status: Status, authority: PublishedAuthority | None, now: dt.datetime) -> None:
        self._status = status
        self._authority = authority
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        yield from _with_old_names(self._metrics())

    def _metrics(self) -> Iterator[Metric]:
        yield from _counters(self._status)
        yield from _sessions(self._status)
        yield from _workers(self._status)
        yield from _certificates(self._status)
        if self._authority is not None:
            yield from _private_ca(self._authority, self._now)


def _counters(status: Status) -> Iterator[Metric]:
    counted = dict.fromkeys(_countable(status["listeners"]), 0)
    counted |= {(event, protocol, tls): number for event, protocol, tls, number in status["event_counters"]}
    families = {
        event: CounterMetricFamily(f"mailserver_{counter.name}", counter.help, labels=("protocol", "tls"))
        for event, counter in COUNTERS.items()
    }
    for (event, protocol, tls), number in sorted(counted.items()):
        if event in families:
            families[event].add_metric((protocol, tls), number)
    yield from families.values()
    restarts = CounterMetricFamily("mailserver_worker_restarts", "Workers that ended and were replaced.")
    restarts.add_metric((), status["restarts"])
    yield restarts
    words = "Clients (IPv4 addresses, /64 networks of IPv6) that are banned."
    yield GaugeMetricFamily("mailserver_bans", words, value=status["bans"])
    marked = "Users whose password was sent in clear text, until `mailserver exposures clear`."
    yield GaugeMetricFamily("mailserver_exposed_users", marked, value=status["exposures"])


def _countable(listeners: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield what can be counted at these listeners: a counter that starts at 1 has no rate at first."""
    for listener in listeners:
        protocol, tls = listener["protocol"], listener["tls"]
        family = protocol.removesuffix("s") if tls == "implicit" else protocol
        secured = VERSIONS if tls != "none" else ()
        plain = ("none",) if tls == "none" or listener["cleartext"] or family == "lmtp" else ()
        for event, counter in COUNTERS.items():
            if family in counter.families and tls in counter.kinds:
                states = ("none",) if counter.before_tls else secured if event == "handshake" else (*secured, *plain)
                for state in states:
                    yield event, protocol, state


def _sessions(status: Status) -> Iterator[Metric]:
    """Count sessions by protocol and TLS version; a listener's protocol without any has 0."""
    open_sessions: Counter[tuple[str, str]] = Counter()
    logged_in = 0
    for listener in status["listeners"]:
        open_sessions[listener["protocol"], "none"] += 0
    for worker in _responding(status):
        logged_in += worker["sessions"]["logged_in"]
        for protocol, tls, number in worker["sessions"]["by_tls"]:
            open_sessions[protocol, tls] += number
    family = GaugeMetricFamily("mailserver_sessions", "Open connections.", labels=("protocol", "tls"))
    for labels, number in sorted(open_sessions.items()):
        family.add_metric(labels, number)
    yield family
    yield GaugeMetricFamily("mailserver_sessions_logged_in", "Sessions that have logged in.", value=logged_in)


def _workers(status: Status) -> Iterator[Metric]:
    states: Counter[str] = Counter({"starting": 0, "serving": 0, "retiring": 0})
    for worker in status["workers"]:
        states[worker.get("state", "serving")] += 1
    family = GaugeMetricFamily("mailserver_workers", "Worker processes.", labels=("state",))
    for state, number in sorted(states.items()):
        family.add_metric((state,), number)
    yield family
    silent = sum(not worker["answers"] for worker in status["workers"])
    yield GaugeMetricFamily("mailserver_workers_unresponsive", "Workers that do not respond.", value=silent)
    for key, (name, words) in GAUGES.items():
        filled = GaugeMetricFamily(f"mailserver_{name}", words, labels=("worker",))
        most = GaugeMetricFamily(f"mailserver_{name}_limit", f"Limit: {words}", labels=("worker",))
        for worker in _responding(status):
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
    ends = GaugeMetricFamily(
        "mailserver_certificate_expiry_timestamp_seconds", "Time when a host's certificate ends.", labels=("host",)
    )
    days = GaugeMetricFamily(
        "mailserver_certificate_days_left",
        "Whole days until a host's certificate ends; old form of mailserver_certificate_expiry_timestamp_seconds.",
        labels=("host",),
    )
    words = "The least of 30, 14, 7, 1 and 0 days that the time until the end does not exceed; absent above 30."
    warnings = GaugeMetricFamily("mailserver_certificate_warning_days", words, labels=("host",))
    for certificate in status["certificates"]:
        ends.add_metric((certificate["host"],), certificate["expires"])
        days.add_metric((certificate["host"],), certificate["days_left"])
        if certificate["warning"] is not None:
            warnings.add_metric((certificate["host"],), certificate["warning"])
    yield from (ends, days, warnings)
    words = "Failed attempts in a row to get a certificate from the ACME authority."
    failures = GaugeMetricFamily("mailserver_acme_failures", words, labels=("host",))
    for row in status["acme"]:
        failures.add_metric((row["host"],), row["failures"])
    yield failures


def _private_ca(authority: PublishedAuthority, now: dt.datetime) -> Iterator[Metric]:
    yield from _end_of("private_ca", "the private authority's certificate", authority.not_after, now)
    if authority.crl_not_after is not None:
        words = "the private authority's revocation list, after which users' certificates are refused,"
        yield from _end_of("private_ca_crl", words, authority.crl_not_after, now)


def _end_of(name: str, words: str, end: dt.datetime, now: dt.datetime) -> Iterator[Metric]:
    """The second metric is the old form of the first."""
    new = f"mailserver_{name}_expiry_timestamp_seconds"
    yield GaugeMetricFamily(new, f"Time when {words} ends.", value=end.timestamp())
    old = f"Whole days until {words} ends; old form of {new}."
    yield GaugeMetricFamily(f"mailserver_{name}_days_left", old, value=(end - now).days)


def _with_old_names(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Repeat renamed metrics under their old names, until the next release."""
    for metric in metrics:
        yield metric
        name = metric.name.removeprefix("mailserver_")
        bare = name.removesuffix("_limit")
        if bare in OLD_NAMES:
            old = f"mailserver_{OLD_NAMES[bare]}{name.removeprefix(bare)}"
            renamed = Metric(old, f"Old name of {metric.name}.", metric.type)
            for sample in metric.samples:
                renamed.add_sample(sample.name.replace(metric.name, old, 1), sample.labels, sample.value)
            yield renamed


def _responding(status: Status) -> list[Mapping[str, Any]]:
    return [worker for worker in status["workers"] if worker["answers"]]


async def answer(_request: Request, services: HttpServices) -> Response:
    """Answer with all metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Numbers(await services.query_status(), services.authority(), dt.datetime.now(dt.UTC)))
    return Response(200, generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)


ROUTES: Final = (Route("/metrics", answer, monitoring=True, cost=Cost("counters times workers")),)
