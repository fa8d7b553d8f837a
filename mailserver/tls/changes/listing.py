"""Served and recorded certificates as plain values for the administrator's commands."""

from __future__ import annotations

import datetime as dt
from typing import TypeAlias

from mailserver.tls.changes.activation import Activation
from mailserver.tls.serving.policy import TlsPolicy
from mailserver.tls.state.expiry import threshold
from mailserver.tls.state.history import Entry, History

Row: TypeAlias = dict[str, "str | int | bool | None"]


def summary(policy: TlsPolicy) -> list[Row]:
    """Describe the certificate of each host name, for `mailserver status`."""
    now = dt.datetime.now(dt.UTC)
    return [
        {
            "host": each.host,
            "domain": each.domain,
            "not_after": each.not_after.date().isoformat(),
            "expires": int(each.not_after.timestamp()),
            "days_left": (each.not_after - now).days,
            "fingerprint": each.fingerprint,
            "issuer": each.issuer,
            "origin": each.origin,
            "warning": threshold(each.not_after, now),
            "default": each.is_default,
        }
        for each in policy.describe()
    ]


def certificate_rows(policy: TlsPolicy, activation: Activation) -> list[Row]:
    """Describe each certificate in full, chains included. Raises: CannotRecord."""
    rows = []
    for row, each in zip(summary(policy), policy.describe(), strict=True):
        entry = activation.history.current(each.host)
        current = entry if entry is not None and entry.fingerprint == each.fingerprint else None
        served = policy.served.by_host[each.host]
        second = served.terms.second
        rows.append(
            {
                **row,
                "not_after": each.not_after.isoformat(),
                "activation": None if current is None else current.id,
                "since": None if current is None else current.time,
                "reason": None if current is None else current.reason,
                "certificate": served.pair.chain_pem.decode("ascii", "replace"),
                "second_certificate": None if second is None else second.chain_pem.decode("ascii", "replace"),
            }
        )
    return rows


def history_rows(history: History, host: str) -> list[Row]:
    """List the activations of a host, or of all if it is "", the newest first. Raises: CannotRecord."""
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
