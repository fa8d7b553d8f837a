"""The registry of SASL mechanisms: one row each. The configuration chooses among them by these names.

A mechanism is offered where it can succeed, on this connection and with these back ends, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen

from mailserver.sasl.external import External
from mailserver.sasl.login import Login
from mailserver.sasl.mechanism import Mechanism
from mailserver.sasl.plain import Plain
from mailserver.sasl.scram import Scram


@frozen
class Situation:
    """The facts that decide which mechanisms can succeed."""

    binding: bytes | None = None
    """The octets of tls-exporter; None where the connection has none that can be trusted."""
    certified: str = ""
    """The user name in the client's verified certificate; empty without one."""
    scram_hashes: frozenset[str] = frozenset()
    """Hashes for which the back ends have keys."""
    trusts_certificates: bool = False
    """Does a back end let users in by their certificate?"""
    passwords: bool = True
    """May a password be sent as it is?"""


@frozen
class Row:
    """One mechanism."""

    can_succeed: Callable[[Situation], bool]
    make: Callable[[Situation, bool], Mechanism]
    """Makes one exchange; the second argument: was a -PLUS mechanism offered beside it?"""
    sends_password: bool = False
    """Does the client send its password as it is?"""


def _scram(hash_name: str) -> Row:
    return Row(
        lambda now: hash_name in now.scram_hashes,
        lambda _now, plus_offered: Scram(hash_name, plus_offered=plus_offered),
    )


def _scram_plus(hash_name: str) -> Row:
    return Row(
        lambda now: hash_name in now.scram_hashes and now.binding is not None,
        lambda now, _plus_offered: Scram(hash_name, binding=now.binding),
    )


MECHANISMS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "EXTERNAL": Row(
            lambda now: bool(now.certified) and now.trusts_certificates, lambda now, _plus: External(now.certified)
        ),
        "SCRAM-SHA-256-PLUS": _scram_plus("SHA-256"),
        "SCRAM-SHA-256": _scram("SHA-256"),
        "SCRAM-SHA-1-PLUS": _scram_plus("SHA-1"),
        "SCRAM-SHA-1": _scram("SHA-1"),
        "PLAIN": Row(lambda now: now.passwords, lambda _now, _plus: Plain(), sends_password=True),
        "LOGIN": Row(lambda now: now.passwords, lambda _now, _plus: Login(), sends_password=True),
    }
)
"""By name, upper case, as RFC 4422 3.1 writes it."""


def sends_password(name: str) -> bool:
    """Does a client that begins this mechanism send its password as it is? False for an unknown one."""
    return name in MECHANISMS and MECHANISMS[name].sends_password


class Mechanisms:
    """The mechanisms that the configuration allows, in its order."""

    def __init__(self, names: Iterable[str]) -> None:
        """Raises: KeyError for a name that is none of MECHANISMS."""
        self._rows = {name: MECHANISMS[name] for name in names}

    def offered(self, situation: Situation) -> list[str]:
        """The names to list."""
        return [name for name, row in self._rows.items() if row.can_succeed(situation)]

    def start(self, name: str, situation: Situation) -> Mechanism | None:
        """An exchange of that mechanism; None where it is not offered."""
        offered = self.offered(situation)
        if name not in offered:
            return None
        return self._rows[name].make(situation, any(each.endswith("-PLUS") for each in offered))
