"""Where keys are read: what the administrator wants of an ACME account and its certificates, done by the child process.

All of it blocks for less than a minute. All raise: NotObtained, CannotRecord.
"""

from __future__ import annotations

from typing import Any, Final

from mailserver.config.model import Config
from mailserver.tls import acme_state
from mailserver.tls.acme_child import Child, NotObtained
from mailserver.tls.strangers import printable

PATIENCE: Final = 50.0
"""Seconds until the child process is ended."""
REASONS: Final = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
"""Why a certificate is revoked, of RFC 5280 5.3.1 what its owner may say."""


def describe(config: Config, *, update: bool) -> dict[str, str]:
    """The account at the authority; with `update` it gets the configuration's contacts first (RFC 8555 7.3.2)."""
    match _ask(config, "account", update=update):
        case {"address": str(address), "status": str(status), "contact": [*contact]}:
            return {
                "address": printable(address),
                "status": printable(status),
                "contact": printable(", ".join(map(str, contact))),
            }
    raise NotObtained("the authority tells nothing of the account")


def deactivate(config: Config) -> None:
    """End the account, and forget its key (RFC 8555 7.3.6)."""
    directory, authority = _place(config)
    _ask(config, "deactivate")
    acme_state.forget_account(directory, authority)


def roll_over(config: Config) -> None:
    """Give the account a new key (RFC 8555 7.3.5).

    The new one is remembered before the authority hears of it: a change that was cut short is ended by the next call.
    """
    directory, authority = _place(config)
    key = acme_state.next_account_key(directory, authority)
    try:
        _ask(config, "roll-over", next=key.reveal().decode())
    except NotObtained as refused:
        if refused.decided:
            acme_state.drop_next_key(directory, authority)
        raise
    acme_state.take_next_key(directory, authority)


def finish_roll_over(config: Config) -> bool:
    """End a change of keys that was cut short. Was there one?"""
    if not acme_state.is_changing(*_place(config)):
        return False
    roll_over(config)
    return True


def revoke(config: Config, chain_pem: bytes, reason: str) -> None:
    """Have the authority revoke the first certificate of a chain (RFC 8555 7.6); `reason` is one of REASONS."""
    _ask(config, "revoke", certificate=chain_pem.decode("ascii"), reason=REASONS[reason])


def _place(config: Config) -> tuple[Any, str]:
    assert config.acme is not None
    return config.server.state_dir, config.acme.directory


def _ask(config: Config, do: str, **job: Any) -> dict[str, Any]:
    return Child(config).ask(do, job, seconds=PATIENCE)
