"""Validation of an element of `backends` in [auth]: a text, or a table with settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mailserver.config import values
from mailserver.config.model import BackendUse
from mailserver.config.values import InvalidValue

_KEYS: Final = BackendUse._fields
_MAX_TIME: Final = 60
"""Seconds: clients and other servers wait no longer for a login."""
_MAX_CALLS: Final = 256
"""A back end that blocks has a thread for each."""
MAX_CACHE: Final = 600
"""Seconds for which digests of passwords are kept."""


def backend_use(value: Any, _type: Any = None) -> BackendUse:
    """A text NAME:ARGUMENT, or a table. No fault repeats the text, which may contain a password."""
    if isinstance(value, str):
        return BackendUse(values.text(value))
    if not isinstance(value, dict):
        raise InvalidValue(f"must be text in quotes or a table with the key use, not {values.kind(value)}")
    for key in value:
        if key not in _KEYS:
            near = values.nearest(str(key), _KEYS)
            raise InvalidValue(f"a table has the keys {', '.join(_KEYS)}, and not {key!r}", near)
    if "use" not in value:
        raise InvalidValue('a table needs the key use, such as use = "ldap:..."')
    use = _of("use", values.text, value["use"])
    name = use.partition(":")[0]
    domains = value.get("domains", [])
    if not isinstance(domains, list):
        raise InvalidValue(f"domains of {name} must be an array in square brackets, not {values.kind(domains)}")
    if "domains" in value and not domains:
        raise InvalidValue(f"domains of {name} must name at least one; omit the key for all")
    found = BackendUse(use, tuple(_of(f"domains of {name}", values.host_name, domain) for domain in domains))
    if "time" in value:
        found = found._replace(time=_of(f"time of {name}", values.seconds, value["time"]))
    if "calls" in value:
        found = found._replace(calls=_of(f"calls of {name}", values.at_least_one, value["calls"]))
    if "cache" in value:
        found = found._replace(cache=_cache(name, value["cache"]))
    if found.time > _MAX_TIME:
        raise InvalidValue(f"time of {name} must be at most {_MAX_TIME} seconds: no client waits longer")
    if found.calls > _MAX_CALLS:
        raise InvalidValue(f"calls of {name} must be at most {_MAX_CALLS}")
    return found


def _cache(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"cache of {name} must be a number of seconds, not {values.kind(value)}")
    if not 0 <= value <= MAX_CACHE:
        raise InvalidValue(f"cache of {name} must be from 0, which is never, to {MAX_CACHE} seconds")
    return float(value)


def _of(place: str, check: Callable[[Any], Any], value: Any) -> Any:
    """A checked value; the fault names its place, as that of the whole element says less."""
    try:
        return check(value)
    except InvalidValue as fault:
        raise InvalidValue(f"{place} {fault.reason}", fault.near) from None
