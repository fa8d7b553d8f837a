"""What is done here in place of Twisted's and pyOpenSSL's own, which was copied in part or steps into the middle of it.

Where a new version of either changes one of these, nothing else may notice: a step that was added there is then missing
here. Who raises a pin compares the two, and then writes the new digest.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet import base, epollreactor, posixbase
from twisted.protocols import tls

CONNECTION: Any = SSL.Connection
POLLING: Any = posixbase._PollLikeMixin
LAYER: Any = tls.TLSMemoryBIOProtocol

COPIED: list[tuple[str, Callable[..., Any], str]] = [
    ("net.fast.reactor_turn", epollreactor.EPollReactor.doPoll, "09b62ae68ef01b4b"),
    ("net.fast.reactor_turn", POLLING._doReadOrWrite, "5ffee55b79492b00"),
    ("net.fast.reactor_turn", posixbase.PosixReactorBase._disconnectSelectable, "9d6de0e555ea44fe"),
    ("net.fast.reactor_turn", base.ReactorBase.runUntilCurrent, "b9fbbdb8e8414792"),
    ("net.fast.tls", LAYER.makeConnection, "c83b193e6cb07f9f"),
    ("net.fast.tls", LAYER._checkHandshakeStatus, "3902da2549f56145"),
    ("net.fast.tls", LAYER._flushSendBIO, "c034168e4f0faf2c"),
    ("net.fast.tls", LAYER._flushReceiveBIO, "b45e129f60c44862"),
    ("net.fast.tls", LAYER.dataReceived, "0c9326eac628dc89"),
    ("net.fast.tls", LAYER._shutdownTLS, "f72004ba90a03215"),
    ("net.fast.tls", LAYER._tlsShutdownFinished, "e78b042366fe0af0"),
    ("net.fast.tls", LAYER.connectionLost, "db44a0b303d81d19"),
    ("net.fast.tls", LAYER.loseConnection, "5681a9bd1bd76930"),
    ("net.fast.tls", LAYER._write, "b795cc8e83620d7d"),
    ("net.fast.tls", LAYER._unbufferPendingWrites, "c2b342c0a2c72978"),
    ("net.fast.tls", CONNECTION.do_handshake, "fcfb0befeab35810"),
    ("net.fast.tls", CONNECTION._raise_ssl_error, "04b0d7964c73ea9e"),
    ("net.fast.tls", CONNECTION.recv, "84b0e9671ae37797"),
    ("net.fast.tls", CONNECTION.send, "3a17d0bf025164cf"),
    ("net.fast.tls", CONNECTION.bio_write, "2198d63b78ada6dc"),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "digest"), COPIED, ids=[theirs.__qualname__ for _ours, theirs, _digest in COPIED]
)
def test_what_was_copied_is_still_as_it_was(ours: str, theirs: Callable[..., Any], digest: str) -> None:
    now = hashlib.sha256(inspect.getsource(theirs).encode()).hexdigest()[:16]
    assert now == digest, f"{theirs.__module__}.{theirs.__qualname__} has changed: compare mailserver.{ours} with it"
