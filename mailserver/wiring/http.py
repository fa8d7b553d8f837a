"""HTTP's part of `mailserver.wiring.services`, imported only if there is an HTTP listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mailserver.config.model import Config
from mailserver.http.messages import Status
from mailserver.http.services import HttpServices, PublishedAuthority
from mailserver.http.session import HttpSession
from mailserver.session.channel import Channel
from mailserver.tls.keypair.signature import sign
from mailserver.tls.serving.policy import TlsPolicy


def make_http(
    config: Config, policy: TlsPolicy, query_status: Callable[[], Awaitable[Status]]
) -> Callable[[Channel], HttpSession]:
    """Return a function that makes sessions; `query_status` asks all workers for their numbers."""

    def sign_for(host: str, octets: bytes) -> bytes:
        pair = policy.pair_of(host)
        return octets if pair is None else sign(pair, octets)

    def authority() -> PublishedAuthority | None:
        ca = policy.private_ca
        return None if ca is None else PublishedAuthority(ca.name, ca.der, ca.not_after, ca.crl, ca.crl_not_after)

    def fingerprint(host: str) -> str:
        pair = policy.pair_of(host)
        return "" if pair is None else pair.fingerprint

    services = HttpServices(config, query_status, sign_for, authority, fingerprint)
    return lambda channel: HttpSession(channel, services)
