"""Messages from a worker or the zygote, as frozen classes that `message_schema` makes and validates.

WORKER_MESSAGES and ZYGOTE_MESSAGES list what the master takes from each. The body of a Broadcast is one of BROADCASTS:
the master passes its text on as it is, and each worker parses and validates it. Rows of the result of a query are at the end.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from attrs import field, frozen
from attrs.validators import max_len

from mailserver.net.ipc.message_schema import Measure, decode, encode

MAX_EVENT_ROWS: Final = 5000
"""Rows of event counters of one worker."""
MAX_WORD: Final = 64
"""Characters of an event's, a protocol's or a TLS version's name."""
MAX_NAME: Final = 1024
"""Characters of a name that a client typed."""
MAX_ROWS: Final = 5000
"""Rows in any other message."""
MAX_BODY: Final = 1 << 20
"""Characters of the body of a Broadcast."""

EventRow: TypeAlias = tuple[str, str, str, int]
"""Event, protocol, TLS version or "none", number."""
_rows: Final[Any] = max_len(MAX_ROWS)


def _check_event_rows(_message: object, _attribute: object, rows: tuple[EventRow, ...]) -> None:
    """Raises: ValueError."""
    if len(rows) > MAX_EVENT_ROWS:
        raise ValueError(f"more than {MAX_EVENT_ROWS} rows")
    for event, protocol, tls, number in rows:
        if number < 0 or len(event) > MAX_WORD or len(protocol) > MAX_WORD or len(tls) > MAX_WORD:
            raise ValueError("a name is too long, or a number is negative")
        if not (event.isascii() and protocol.isascii() and tls.isascii()):
            raise ValueError("a name is not ASCII")


def _check_body(_message: object, _attribute: object, body: object) -> None:
    """Raises: ValueError."""
    if type(body) is not str or len(body) > MAX_BODY:
        raise ValueError("not a text, or too long")


# --- From a worker to the master


@frozen
class WorkerReady:
    """The worker serves."""


@frozen
class WorkerFailed:
    """The worker cannot start."""

    reason: str


@frozen
class Heartbeat:
    """Sign of life, with numbers that the master keeps of each worker."""

    sessions: int
    memory: int
    """Octets that no file backs."""
    event_counters: tuple[EventRow, ...] = field(validator=_check_event_rows)
    """Absolute numbers since the worker's start."""


@frozen
class ClientsSeen:
    """Clients for the ledger, a `ledger.entry.as_row` each; the ledger validates the rows."""

    rows: tuple[Any, ...] = field(validator=_rows)


@frozen
class CredentialsUsed:
    """Uses of app passwords, an `auth.credential_uses.CredentialUse` each; the ledger validates the rows."""

    rows: tuple[Any, ...] = field(validator=_rows)


@frozen
class PasswordExposed:
    """A valid password came in clear text (`auth.exposure.exposure.Mark`)."""

    mark: dict[str, str]


@frozen
class StatusRequest:
    """A session of the worker needs the status of all workers."""


@frozen
class Broadcast:
    """A message for all other workers."""

    kind: str
    """A key of BROADCASTS."""
    body: Any = field(validator=_check_body)
    """The text of that message (`message_schema.to_text`)."""


@frozen
class Reply:
    """The result of a query or an order of the master."""

    request: int
    body: Any


@frozen
class ReplyPart:
    """The next rows of a result that is a list; those of the Reply are its last."""

    request: int
    rows: tuple[Any, ...] = field(validator=_rows)


@frozen
class RequestFailed:
    """A query or an order of the master has no result."""

    request: int
    reason: str


@frozen
class GuessMade:
    """A refused login whose password was wrong (`auth.throttling.guess_counts.Guess`); the master checks the address."""

    peer: str = field(validator=max_len(MAX_WORD))
    name: str = field(validator=max_len(MAX_NAME))
    shown: str = field(validator=max_len(MAX_NAME))
    digest: str = field(validator=max_len(MAX_WORD))
    protocol: str = field(validator=max_len(MAX_WORD))
    id: str = field(validator=max_len(MAX_WORD))
    is_proof: bool = False


@frozen
class NetworksKnown:
    """Networks that users have logged in from, a `known_networks.Row` each: to the master, and to the other workers.

    The receiver validates the rows (`known_networks.rows_of`).
    """

    rows: tuple[Any, ...] = field(validator=_rows)


WorkerMessage: TypeAlias = (
    WorkerReady
    | WorkerFailed
    | Heartbeat
    | ClientsSeen
    | CredentialsUsed
    | PasswordExposed
    | NetworksKnown
    | GuessMade
    | StatusRequest
    | Broadcast
    | Reply
    | ReplyPart
    | RequestFailed
)
WORKER_MESSAGES: Final[dict[str, type[WorkerMessage]]] = {
    "ready": WorkerReady,
    "failed": WorkerFailed,
    "heartbeat": Heartbeat,
    "clients seen": ClientsSeen,
    "credentials used": CredentialsUsed,
    "password exposed": PasswordExposed,
    "networks known": NetworksKnown,
    "guess made": GuessMade,
    "status request": StatusRequest,
    "broadcast": Broadcast,
    "reply": Reply,
    "reply part": ReplyPart,
    "request failed": RequestFailed,
}

# --- From a worker to the other workers


@frozen
class ConnectionCountsChanged:
    """Numbers of connections of the sender as they are now, a `connection_limits.CountKey` and its number each."""

    counts: tuple[tuple[tuple[str, ...], int], ...] = field(validator=_rows)


@frozen
class PenaltiesChanged:
    """Changes of the table of penalties, a `penalties.News` each; the table validates them."""

    news: tuple[Any, ...] = field(validator=_rows)


@frozen
class PasswordsVerified:
    """Digests of passwords that were right: user, digest in hexadecimal, seconds that it is still kept."""

    news: tuple[tuple[str, str, float], ...] = field(validator=_rows)


@frozen
class ExposureTaken:
    """The sender checks an exposed password (`auth.exposure.exposure.Key`)."""

    key: tuple[str, str, str]


@frozen
class ExposuresTaken:
    """Exposed passwords that were taken lately, for a worker that begins."""

    keys: tuple[tuple[str, str, str], ...] = field(validator=_rows)


BroadcastBody: TypeAlias = (
    ConnectionCountsChanged | PenaltiesChanged | PasswordsVerified | NetworksKnown | ExposureTaken | ExposuresTaken
)
BROADCASTS: Final[dict[str, type[BroadcastBody]]] = {
    "connection counts": ConnectionCountsChanged,
    "penalties": PenaltiesChanged,
    "passwords verified": PasswordsVerified,
    "networks known": NetworksKnown,
    "exposure taken": ExposureTaken,
    "exposures taken": ExposuresTaken,
}

# --- From the zygote to the master


@frozen
class ZygoteReady:
    """The zygote can fork. The descriptor of the log file comes beside it, where there is one."""


@frozen
class ZygoteFailed:
    """The zygote cannot begin."""

    reason: str


@frozen
class ZygoteHeartbeat:
    """Sign of life."""

    children: int


@frozen
class WorkerForked:
    """A worker was made; its pidfd comes beside this."""

    request: int
    pid: int


@frozen
class ForkFailed:
    """A worker could not be made."""

    request: int
    reason: str


@frozen
class ChildEnded:
    """A worker has ended, with its exit status, or a signal's number below 0."""

    pid: int
    status: int


@frozen
class LogFileOpened:
    """The log file was opened anew; its descriptor comes beside this."""


ZygoteMessage: TypeAlias = (
    ZygoteReady | ZygoteFailed | ZygoteHeartbeat | WorkerForked | ForkFailed | ChildEnded | LogFileOpened
)
ZYGOTE_MESSAGES: Final[dict[str, type[ZygoteMessage]]] = {
    "ready": ZygoteReady,
    "failed": ZygoteFailed,
    "heartbeat": ZygoteHeartbeat,
    "forked": WorkerForked,
    "fork failed": ForkFailed,
    "ended": ChildEnded,
    "log file opened": LogFileOpened,
}

# --- Results of orders and queries: bodies of a Reply


@frozen
class PrepareResult:
    """Why a worker cannot take a configuration up; empty where it can."""

    faults: tuple[str, ...] = field(validator=_rows)


@frozen
class CommitResult:
    """Sentences about what a worker did."""

    lines: tuple[str, ...] = field(validator=_rows)


@frozen
class SessionRow:
    """A connection, as `mailserver who` shows it."""

    session: str
    user: str | None
    protocol: str
    peer: str | None
    port: int
    tls: str | None
    name: str | None
    """Server name that the client asked for (SNI)."""
    since: int
    mailbox: str | None
    received: int
    sent: int
    delegate: str | None = None
    """The account that has logged in as the user."""


@frozen
class ListenerStatus:
    """A listener of a worker."""

    place: str
    protocol: str
    tls: str
    cleartext: bool
    connections: int


@frozen
class SessionCounts:
    """Numbers of connections of a worker."""

    all: int
    logged_in: int
    by_protocol: dict[str, int]
    by_tls: tuple[tuple[str, str, int], ...]
    """Protocol, TLS version, number."""


@frozen
class CertificateStatus:
    """The certificate that a host name is served under (`tls.changes.listing.summary`)."""

    host: str
    domain: str
    not_after: str
    expires: int
    days_left: int
    fingerprint: str
    issuer: str
    origin: str
    warning: int | None
    default: bool


@frozen
class WorkerStatus:
    """The status of one worker; memory in octets, times in Unix time."""

    pid: int
    since: int
    memory: int
    descriptors: int
    descriptors_most: int
    listeners: tuple[ListenerStatus, ...]
    sessions: SessionCounts
    certificates: tuple[CertificateStatus, ...]
    event_counters: tuple[EventRow, ...] = field(validator=_check_event_rows)
    measures: dict[str, Measure] = field(factory=dict)
    """Numbers about the worker's caches and queues, by name."""


_WORKER_TAGS: Final = {message_class: tag for tag, message_class in WORKER_MESSAGES.items()}
_ZYGOTE_TAGS: Final = {message_class: tag for tag, message_class in ZYGOTE_MESSAGES.items()}


def encode_worker_message(message: WorkerMessage) -> bytes:
    """Return the frame of a worker's message."""
    return encode(message, _WORKER_TAGS[type(message)])


def decode_worker_message(frame: bytes) -> WorkerMessage:
    """Validate a frame from a worker. Raises: BadMessage."""
    return decode(frame, WORKER_MESSAGES)


def encode_zygote_message(message: ZygoteMessage) -> bytes:
    """Return the frame of the zygote's message."""
    return encode(message, _ZYGOTE_TAGS[type(message)])


def decode_zygote_message(frame: bytes) -> ZygoteMessage:
    """Validate a frame from the zygote. Raises: BadMessage."""
    return decode(frame, ZYGOTE_MESSAGES)
