"""The login service of a process, and its state: penalties, limits, known networks. The state survives every reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mailserver.auth.exposure.checker import ExposureChecker, ExposureMark
from mailserver.auth.restrictions import Names
from mailserver.auth.schemes.hash_pool import HashPool
from mailserver.auth.schemes.salt_secret import salt_secret
from mailserver.auth.service import LoginService
from mailserver.auth.throttling.known_networks import MAX_KNOWN, KnownNetworks
from mailserver.auth.throttling.login_throttle import LoginThrottle
from mailserver.auth.throttling.penalties import MAX_PAIRS, Penalties
from mailserver.auth.throttling.verified_passwords import VerifiedPasswords
from mailserver.config.model import Auth
from mailserver.net.connection.coroutines import AbandonableDeferred, spawn
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.service.known_networks_file import KnownNetworksFile
from mailserver.net.serving.state_sync import ExposureSync, KnownNetworkSync, PenaltySync, VerifiedPasswordSync


class Logins:
    """Login state of one process: penalties, throttling, known networks and exposed passwords."""

    def __init__(
        self, reactor: Any, link: ServerLink | None, hash_pool: HashPool, sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        """`link`: to the other workers; None if there are none."""
        self._hash_pool = hash_pool
        key = link.penalty_key if link is not None else None
        self._known = KnownNetworks(link.known_key if link is not None else None)
        self._penalties = Penalties(reactor.seconds, key=key, known=self._known)
        self._attempts = LoginThrottle(self._penalties, sleep, reactor.seconds, AbandonableDeferred, reactor.callLater)
        self._checked = VerifiedPasswords(reactor.seconds, key)
        self._exposures = ExposureChecker(
            self._penalties.digest, reactor.seconds, reactor.callLater, spawn, lambda: hash_pool.waiting[0] > 0
        )
        if link is not None:
            PenaltySync(link, self._penalties)
            VerifiedPasswordSync(link, self._checked)
            KnownNetworkSync(link, self._known)
            ExposureSync(link, self._exposures)
        self._salt_secret = salt_secret() or key

    def make_service(self, auth: Auth, backends: Sequence[Any], names: Names) -> LoginService:
        """Make the login service of a configuration."""
        self._penalties.first_delay = auth.failure_delay
        self._penalties.max_delay = auth.failure_delay_max
        return LoginService(
            backends,
            self._hash_pool,
            names,
            self._attempts,
            secret=self._salt_secret,
            scram_for_some=auth.scram_for == "some",
            weak_schemes=auth.weak_schemes,
            exposures=self._exposures,
            checked=self._checked,
        )

    def set_exposure_recorder(self, take: Callable[[ExposureMark], None]) -> None:
        """Report exposed passwords to `take`, in a process without a master."""
        self._exposures.on_exposed = take

    def use_known_networks(self, file: KnownNetworksFile) -> None:
        """Use the table of `file`, in a process without a master."""
        self._known = self._penalties.known = file.known
        file.known.on_change = file.changed

    def status(self) -> dict[str, Json]:
        """Numbers and their limits, for `mailserver status`."""
        return {
            "penalties": [len(self._penalties), MAX_PAIRS],
            "known_networks": [len(self._known), MAX_KNOWN],
        }
