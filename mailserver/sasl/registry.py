"""Which SASL mechanisms there are: one row each. The configuration chooses among them by these names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from mailserver.sasl.login import Login
from mailserver.sasl.mechanism import Mechanism
from mailserver.sasl.plain import Plain

MECHANISMS: Final[Mapping[str, Callable[[], Mechanism]]] = MappingProxyType({"PLAIN": Plain, "LOGIN": Login})
"""Name, upper case, as RFC 4422 3.1 writes it -> what makes one exchange."""
