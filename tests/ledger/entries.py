"""Entries for tests."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from mailserver.ledger.entry import Entry, SeenEntry

ANNA = Entry(
    account="anna@example.test",
    program="Thunderbird 128.0",
    protocol="imaps",
    port=993,
    tls="implicit",
    version="TLSv1.3",
    cipher="TLS_AES_128_GCM_SHA256",
    alpn="imap",
    server_name="mail.example.test",
    mechanism="PLAIN",
)


def seen(last: int = 1000, first: int = 0, **changed: Any) -> SeenEntry:
    return SeenEntry(evolve(ANNA, **changed), first, last)
