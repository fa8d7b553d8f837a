"""A thousand names: what a start, a new name and a handshake cost, counted."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mailserver.tls.keypair import pair
from mailserver.tls.serving import context_builder, material
from mailserver.tls.serving.policy import TlsPolicy
from tests.tls.site import Client, Site, quiet

NAMES = 1000
HANG = 100.0
"""Seconds; the promise for a start is 10."""


def test_a_thousand_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    for number in range(NAMES):
        site.add(f"d{number}.example.test", [f"mail.d{number}.example.test"])
    config = site.config()
    made, read = [], []
    make_context, read_file = context_builder.make_context, pair.read_file
    for module in (context_builder, material):
        monkeypatch.setattr(module, "make_context", lambda *given: made.append(given) or make_context(*given))
    monkeypatch.setattr(pair, "read_file", lambda path, *more: read.append(path) or read_file(path, *more))
    begun = time.monotonic()
    tls = TlsPolicy(config, quiet)
    assert time.monotonic() - begun < HANG
    assert (len(made), len(read)) == (NAMES, 2 * NAMES)

    # One more: its own context, and no other's.
    before = {host: serving.context for host, serving in tls._map.by_host.items()}
    site.add("new.example.test", ["mail.new.example.test"])
    made.clear()
    tls.reload(site.config())
    assert len(made) == 1
    assert all(tls._map.by_host[host].context is context for host, context in before.items())

    # In a handshake nothing is made or read.
    made.clear()
    read.clear()
    for name in (b"mail.d0.example.test", b"mail.d999.example.test", b"mail.new.example.test"):
        assert Client().connect(tls, name).names == (name.decode(),)
    assert (made, read) == ([], [])
