"""Tables of the service, its limits and caches."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import frozen

from mailserver.config.kinds import Count, HostName, Network, Seconds, Size, TransportKind, Workers
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
    group: str = setting("System group. When empty, the user's primary group.", default="")
    runtime_dir: Path = setting("Directory of the control socket.", default=Path("/run/mailserver"))
    state_dir: Path = setting(
        "Directory of persistent state: certificates with their keys, and their history. It belongs to the user that reads "
        "the keys: root, or with workers = 0 the service's user.",
        default=Path("/var/lib/mailserver"),
    )
    workers: Workers = setting(
        "Worker processes, which share the connections. auto: one for each usable processor. 0: a single process does "
        "everything.",
        default="auto",
    )
    transport: TransportKind = setting(
        "How TCP connections are served: auto uses private names of Twisted and pyOpenSSL, which saves processor time, if both "
        "versions are known to fit; stock uses Twisted's own transports alone.",
        default="auto",
    )
    log_file: Path | None = setting(
        "Log file, instead of standard output and twistd's log file. SIGUSR1 reopens it.",
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

    login_time: Seconds = setting("Seconds within which a connection must log in.", default=180.0)
    unauthenticated_per_address: Count = setting(
        "Connections of one address (IPv6: /64) that have not logged in.", default=40
    )
    sessions_per_user: Count = setting("Sessions of one user from one address.", default=20)
    connections: Count = setting("Connections in all.", default=10000)
    mailboxes_per_user: Count = setting(
        "Mailboxes of a user, and names that it may subscribe to; at least 100.", default=10_000
    )
    messages_per_mailbox: Count = setting("Messages in one mailbox.", default=5_000_000)
    write_timeout: Seconds = setting("Seconds in which a client may read nothing of an answer.", default=300.0)
    transfer_timeout: Seconds = setting("Seconds without progress inside a command, literal or message.", default=120.0)
    worker_memory: Size = setting(
        "Memory of a worker, in octets, at which it is replaced. Its sessions continue until they end.", default=2 << 30
    )


@frozen
class Bans:
    """[bans]"""

    enabled: bool = setting("Ban addresses that guess passwords. Without it only the administrator bans.", default=True)
    never: tuple[Network, ...] = setting(
        "Networks and addresses that are never banned, such as a reverse proxy that sends no PROXY header. Loopback and the "
        "networks of proxy_from never are.",
        default=(),
        example=["203.0.113.0/24"],
    )
    private: bool = setting(
        "Ban private addresses, too (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 169.254.0.0/16, fc00::/7). Only if no "
        "proxy or gateway, through which many clients come, has one.",
        default=False,
    )
    names: Count = setting("Names that one address may try within 10 minutes before it is banned.", default=Count(10))
    guesses: Count = setting(
        "Wrong passwords, each counted once, that one address may try within 10 minutes before it is banned.",
        default=Count(30),
    )
    time: Seconds = setting(
        "Seconds of the first ban. Each further one is four times as long, up to a day.", default=3600.0
    )


@frozen
class Cache:
    """[cache]"""

    accounts: Count = setting("Accounts that stay open without a session.", default=64)
    messages: Count = setting(
        "Messages in mailboxes without a session whose UIDs, flags and sizes stay in memory, about 28 octets each.",
        default=2_000_000,
    )
    indexes: Count = setting(
        "Accounts with an open index, in use or not: three files and some memory each.", default=256
    )
    message_octets: Size = setting(
        "Octets of small messages, envelopes and structures that stay in memory after they were read.",
        default=16 * 1024 * 1024,
        formerly="recent",
    )
    files: Count = setting("Files of larger messages that stay open for a minute after they were read.", default=64)
    commands: Count = setting("Parsed IMAP commands that are kept, as clients send the same ones again.", default=1024)


@frozen
class Explain:
    """[explain]"""

    refusals: bool = setting(
        "End the answer to a refused login with a short id, as in (ref 7KQF-2M9X), by which `mailserver explain` finds the "
        "reason. The log has the id in any case.",
        default=True,
    )
    keep_days: Count = setting(
        "Days for which `mailserver explain` and `mailserver last` show a login or a refusal; in each worker the newest 4096 of "
        "both kinds.",
        default=Count(7),
    )


@frozen
class Ledger:
    """[ledger]"""

    enabled: bool = setting(
        "Record the clients of each account and how they connect, for `mailserver clients` and `mailserver tls impact`.",
        default=True,
    )
    keep_days: Count = setting("Days after which a client without new connections is removed.", default=Count(180))
    entries_per_account: Count = setting("Entries of one account; the oldest are removed.", default=Count(50))
    entries: Count = setting("Entries of all accounts; the oldest are removed.", default=Count(100_000))
