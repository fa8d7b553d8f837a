"""What connections of the tests know of where they were taken."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from mailserver.config.model import Limits
from mailserver.net.limits import ConnectionCounts
from mailserver.net.listening import Listening
from mailserver.net.tally import Tally


def make_listening(make_session: Any, clock: Clock, tally: Tally, **changed: Any) -> Listening:
    """An IMAP listener without TLS, but for what is `changed`."""
    settings: dict[str, Any] = {
        "protocol": "imap",
        "farewell": b"",
        "refusal": b"",
        "counts": ConnectionCounts(Limits()),
        "tls": None,
        "implicit_tls": False,
        "cleartext": "never",
        "proofs_in_clear": False,
        "tls_required": False,
        "logs_in": True,
        "local": "127.0.0.1:143",
        "sniff_delay": 0.0,
        "early_tls": "serve",
        "signpost": lambda: b"",
        "open_connections": set(),
        "stopped": lambda: None,
    }
    return Listening(make_session=make_session, reactor=clock, tally=tally, **settings | changed)
