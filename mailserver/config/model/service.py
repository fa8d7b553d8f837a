"""The service itself, and what bounds it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import frozen

from mailserver.config.kinds import Count, HostName, Seconds, Size, TransportKind, Workers
from mailserver.config.model.keys import setting


@frozen
class Server:
    """[server]"""

    hostname: HostName = setting("Name in greetings and Received fields.", example="mail.example.org")
    user: str = setting(
        "System user that owns all mail and runs the service. Needed when started as root.",
        default="",
        example="mailserver",
    )
    group: str = setting("System group; the user's own when empty.", default="")
    runtime_dir: Path = setting("Directory of the control socket.", default=Path("/run/mailserver"))
    state_dir: Path = setting(
        "Directory of what the server must remember: certificates with their keys, and which were served when. Who reads "
        "the keys owns it: root, or the user with workers = 0.",
        default=Path("/var/lib/mailserver"),
    )
    workers: Workers = setting(
        "Processes that serve, each with a share of all connections: as many as there are usable processors with auto; "
        "0 has one process do everything.",
        default="auto",
    )
    transport: TransportKind = setting(
        "How TCP connections are served: auto uses private names of Twisted and pyOpenSSL, which saves processor time, if both "
        "versions are known to fit; stock uses Twisted's own transports alone.",
        default="auto",
    )
    log_file: Path | None = setting(
        "Log file instead of standard output and twistd's; SIGUSR1 reopens it.",
        default=None,
        example="/var/log/mailserver/mailserver.log",
    )
    log_format: Literal["text", "json"] = setting(
        "Form of the lines in log_file, and on standard output with `twistd -n`: text for people or json for programs, "
        "with the same events and fields.",
        default="text",
    )


@frozen
class Limits:
    """[limits]"""

    login_time: Seconds = setting("Seconds until a connection must have logged in.", default=180.0)
    unauthenticated_per_address: Count = setting(
        "Connections of one address (IPv6: /64) not yet logged in.", default=40
    )
    sessions_per_user: Count = setting("Sessions of one user from one address.", default=20)
    connections: Count = setting("Connections in all.", default=10000)
    mailboxes_per_user: Count = setting(
        "Mailboxes that a user may have, and names that it may subscribe to; at least 100.", default=10_000
    )
    messages_per_mailbox: Count = setting("Messages that one mailbox may hold.", default=5_000_000)
    write_timeout: Seconds = setting("Seconds that a client may take nothing of an answer.", default=300.0)
    transfer_timeout: Seconds = setting("Seconds without progress inside a command, literal or message.", default=120.0)
    worker_memory: Size = setting(
        "Octets of memory after which a worker is replaced; its sessions go on until they end.", default=2 << 30
    )


@frozen
class Cache:
    """[cache]"""

    accounts: Count = setting("Accounts that stay open without a session.", default=64)
    messages: Count = setting(
        "Messages whose UIDs, flags and sizes stay in memory while no session has their mailbox open, "
        "about 28 octets each.",
        default=2_000_000,
    )
    indexes: Count = setting(
        "Accounts, in use or not, whose index stays open: three files and some memory each.", default=256
    )
    message_octets: Size = setting(
        "Octets of small messages, envelopes and structures that stay in memory after they were read.",
        default=16 * 1024 * 1024,
        formerly="recent",
    )
    files: Count = setting(
        "Files of larger messages that each worker keeps open for a minute after they were read.", default=64
    )
    commands: Count = setting(
        "Command texts of IMAP whose meaning each worker remembers, as clients send the same ones again.", default=1024
    )


@frozen
class Ledger:
    """[ledger]"""

    enabled: bool = setting(
        "Keep which clients each account uses and how they connect, for `mailserver clients` and `mailserver tls impact`.",
        default=True,
    )
    keep_days: Count = setting("Days after which a client that was not seen again is forgotten.", default=Count(180))
    entries_per_account: Count = setting("Entries of one account; the oldest go.", default=Count(50))
    entries: Count = setting("Entries in all; the oldest go.", default=Count(100_000))
