"""What is served and what was, as plain values for the administrator's command."""

from __future__ import annotations

import datetime as dt
from typing import TypeAlias

from mailserver.tls.activation import Activation
from mailserver.tls.expiry import threshold
from mailserver.tls.history import Entry, History
from mailserver.tls.policy import TlsPolicy

Row: TypeAlias = dict[str, "str | int | bool | None"]


def described(policy: TlsPolicy, activation: Activation) -> list[Row]:
    """Each host name with what it is served under. Raises: CannotRecord."""
    now = dt.datetime.now(dt.UTC)
    rows: list[Row] = []
    for each in policy.describe():
        entry = activation.history.current(each.host)
        second = policy.served.by_host[each.host].terms.second
        rows.append(
            {
                "host": each.host,
                "domain": each.domain,
                "origin": each.origin,
                "issuer": each.issuer,
                "fingerprint": each.fingerprint,
                "not_after": each.not_after.isoformat(),
                "days_left": (each.not_after - now).days,
                "warning": threshold(each.not_after, now),
                "default": each.is_default,
                "activation": entry.id if entry is not None and entry.fingerprint == each.fingerprint else None,
                "since": entry.time if entry is not None and entry.fingerprint == each.fingerprint else None,
                "reason": entry.reason if entry is not None and entry.fingerprint == each.fingerprint else None,
                "certificate": policy.served.by_host[each.host].pair.chain_pem.decode("ascii", "replace"),
                "second_certificate": None if second is None else second.chain_pem.decode("ascii", "replace"),
            }
        )
    return rows


def history_of(history: History, host: str) -> list[Row]:
    """The activations of a host, or of all where it is "", the newest first. Raises: CannotRecord."""
    hosts = [host] if host else history.hosts()
    found = [(each, entry) for each in hosts for entry in history.of_host(each)]
    found.sort(key=lambda pair: (-pair[1].id, pair[0]))
    return [_row(each, entry, revoked=history.is_revoked(entry.fingerprint)) for each, entry in found]


def _row(host: str, entry: Entry, *, revoked: bool) -> Row:
    return {
        "id": entry.id,
        "host": host,
        "time": entry.time,
        "reason": entry.reason,
        "origin": entry.origin,
        "fingerprint": entry.fingerprint,
        "restores": entry.restores,
        "revoked": revoked,
    }
