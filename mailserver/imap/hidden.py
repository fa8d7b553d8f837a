"""Capabilities that an operator hides from some clients: `[[imap.hide]]`.

A hidden capability is not listed, and ENABLE ignores it as an unknown one (RFC 5161 3.1). Its commands work as ever: a client
that has learnt of it before, or uses it without looking, is served as it was. NOTIFY alone is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from mailserver.config.model import HiddenCapabilities
from mailserver.session.channel import ConnectionInfo


def rules_for_client(rules: Iterable[HiddenCapabilities], fields: Mapping[str, str]) -> list[HiddenCapabilities]:
    """Those of the rules with `client` that the fields of a client's ID satisfy."""
    return [
        rule
        for rule in rules
        if rule.client
        and all(
            any(_matches(fields.get(name.lower(), ""), pattern) for pattern in patterns)
            for name, patterns in rule.client.items()
        )
    ]


def visible(
    tokens: Sequence[str],
    rules: Iterable[HiddenCapabilities],
    of_client: Sequence[HiddenCapabilities],
    user: str,
    info: ConnectionInfo,
) -> list[str]:
    """The tokens that no rule hides from this connection. `user` is empty before the login."""
    patterns = [
        pattern for rule in rules if _applies(rule, of_client, user, info.local) for pattern in rule.capabilities
    ]
    return [token for token in tokens if not any(_matches(token, pattern) for pattern in patterns)]


def _applies(rule: HiddenCapabilities, of_client: Sequence[HiddenCapabilities], user: str, local: str) -> bool:
    return (
        (not rule.client or rule in of_client)
        and (not rule.users or any(_matches(user, pattern) for pattern in rule.users))
        and (not rule.ports or local.rpartition(":")[2] in map(str, rule.ports))
    )


def _matches(value: str, pattern: str) -> bool:
    return fnmatchcase(value.lower(), pattern.lower())
