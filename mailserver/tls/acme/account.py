"""Requests about an ACME account and its certificates, made by the process that reads keys through a child process.

Each call blocks for less than a minute. All raise: AcmeError, CannotRecord.
"""

from __future__ import annotations

import re
import time
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mailserver.config.model import Config
from mailserver.tls.acme import acme_state, jws
from mailserver.tls.acme.child import AcmeError, Child
from mailserver.tls.keypair.pair import Pair
from mailserver.tls.keypair.sanitize import printable

NONCES: Final = 4
"""Maximum tries of a request whose nonce is refused (RFC 8555 6.5)."""
PATIENCE: Final = 50.0
"""Timeout of the child processes, in seconds."""
REASONS: Final = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
"""Reasons for a revocation that a certificate's owner may give (RFC 5280 5.3.1)."""
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{1,512}")


def describe(config: Config, *, update: bool) -> dict[str, str]:
    """Return the account at the authority; with `update`, set the configuration's contacts first (RFC 8555 7.3.2)."""
    match _ask(config, "account", update=update):
        case {"address": str(address), "status": str(status), "contact": [*contact]}:
            return {
                "address": printable(address),
                "status": printable(status),
                "contact": printable(", ".join(map(str, contact))),
            }
    raise AcmeError("the authority's answer does not describe the account")


def deactivate(config: Config) -> None:
    """End the account and forget its key (RFC 8555 7.3.6)."""
    directory, authority = _place(config)
    _ask(config, "deactivate")
    acme_state.forget_account(directory, authority)


def roll_over(config: Config) -> None:
    """Give the account a new key (RFC 8555 7.3.5).

    The new key is recorded before the authority gets it, so that the next call completes an interrupted change.
    """
    directory, authority = _place(config)
    key = acme_state.next_account_key(directory, authority)
    try:
        _ask(config, "roll-over", next=key.reveal().decode())
    except AcmeError as refused:
        if refused.decided:
            acme_state.drop_next_key(directory, authority)
        raise
    acme_state.take_next_key(directory, authority)


def finish_roll_over(config: Config) -> bool:
    """Complete an interrupted change of keys. Was there one?"""
    if not acme_state.is_changing(*_place(config)):
        return False
    roll_over(config)
    return True


def revoke(config: Config, pair: Pair, reason: str) -> bool:
    """Have the authority revoke a certificate (RFC 8555 7.6); `reason` is one of REASONS. Did the account sign it?

    If another account ordered the certificate, or the account is gone, the certificate's own key signs the revocation.
    """
    end = time.monotonic() + PATIENCE
    try:
        _ask(config, "revoke", certificate=pair.chain_pem.decode("ascii"), reason=REASONS[reason])
    except AcmeError as refused:
        if refused.code not in ("unauthorized", "accountDoesNotExist"):
            raise
        _revoke_by_own_key(config, pair, reason, end)
        return False
    return True


def _revoke_by_own_key(config: Config, pair: Pair, reason: str, end: float) -> None:
    der = x509.load_pem_x509_certificates(pair.chain_pem)[0].public_bytes(serialization.Encoding.DER)
    body = {"certificate": jws.base64url(der), "reason": REASONS[reason]}
    for left in reversed(range(NONCES)):
        match _ask(config, "revocation-terms", end):
            case {"address": str(address), "nonce": str(nonce)} if _NONCE.fullmatch(nonce):
                signed = jws.signed(pair.key_pem, address, nonce, body)
            case _:
                raise AcmeError("the authority gives no nonce (RFC 8555 7.2)")
        try:
            _ask(config, "revoke-signed", end, address=address, signed=signed)
        except AcmeError as refused:
            if refused.code != "badNonce" or not left:
                raise
        else:
            return


def _place(config: Config) -> tuple[Any, str]:
    assert config.acme is not None
    return config.server.state_dir, config.acme.directory


def _ask(config: Config, do: str, end: float | None = None, **job: Any) -> dict[str, Any]:
    """Run a job; `end` is its deadline by time.monotonic."""
    return Child(config).ask(do, job, seconds=PATIENCE if end is None else max(0.0, end - time.monotonic()))
