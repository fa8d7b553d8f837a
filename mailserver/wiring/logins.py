"""The login service of a process, and its state: penalties, limits, known networks. The state survives every reload."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mailserver.auth.backends.guard import Threads
from mailserver.auth.credential_uses import CredentialUse, CredentialUses
from mailserver.auth.exposure.checker import ExposureChecker, ExposureMark
from mailserver.auth.exposure.revocation import Revocations
from mailserver.auth.renewal import Renewals
from mailserver.auth.restrictions import Names
from mailserver.auth.schemes.hash_pool import HashPool
from mailserver.auth.schemes.salt_secret import salt_secret
from mailserver.auth.service import LoginService, ignore_guess
from mailserver.auth.throttling.banned_clients import BannedClients
from mailserver.auth.throttling.guess_counts import Guess
from mailserver.auth.throttling.known_networks import MAX_KNOWN, KnownNetworks, Row
from mailserver.auth.throttling.login_throttle import LoginThrottle
from mailserver.auth.throttling.penalties import MAX_PAIRS, Penalties
from mailserver.auth.throttling.verified_passwords import VerifiedPasswords
from mailserver.config.model import Auth, Explain
from mailserver.explain.log import DIRECTORY, LoginLog
from mailserver.net.admin.ledger import report_uses
from mailserver.net.connection.coroutines import AbandonableDeferred, spawn
from mailserver.net.ipc.message_schema import Json
from mailserver.net.ipc.server_link import ServerLink
from mailserver.net.log.events import log
from mailserver.net.service.known_networks_file import KnownNetworksFile
from mailserver.net.service.server_bans import ServerBans
from mailserver.net.serving.state_sync import BanSync, ExposureSync, KnownNetworkSync, PenaltySync, VerifiedPasswordSync
from mailserver.sasl.scram_keys import HASHES
from mailserver.store.live.notices import Notices


class Logins:
    """Login state of one process: penalties, throttling, known networks and exposed passwords."""

    def __init__(
        self,
        reactor: Any,
        link: ServerLink | None,
        hash_pool: HashPool,
        sleep: Callable[[float], Awaitable[object]],
        runtime_dir: Path | None,
        *,
        threads: Threads,
        notices: Notices,
    ) -> None:
        """`link`: to the other workers; None if there are none. `runtime_dir`: for records of logins; None: none are kept.

        `threads`: for changes of credentials. `notices`: for messages to their owners.
        """
        process = "single" if link is None else f"worker-{link.number}"
        self._log: LoginLog | None = None
        if runtime_dir is not None:
            self._log = LoginLog(runtime_dir / DIRECTORY, process, _complain, clock=reactor.seconds)
        self._hash_pool = hash_pool
        key = link.penalty_key if link is not None else None
        self._known = KnownNetworks(link.known_key if link is not None else None)
        self._penalties = Penalties(reactor.seconds, key=key, known=self._known)
        self._attempts = LoginThrottle(self._penalties, sleep, reactor.seconds, AbandonableDeferred, reactor.callLater)
        self.banned = BannedClients()
        """The clients that are refused."""
        self._report_guess: Callable[[Guess], None] = ignore_guess
        self._checked = VerifiedPasswords(reactor.seconds, key)
        self._exposures = ExposureChecker(
            self._penalties.digest, reactor.seconds, reactor.callLater, spawn, lambda: hash_pool.waiting[0] > 0
        )
        self._revocations = Revocations(
            threads, lambda user, subject, text: notices.send(user.name, user.home, subject, text)
        )
        self._renewals = Renewals(
            hash_pool,
            threads,
            clock=reactor.seconds,
            call_later=reactor.callLater,
            spawn=spawn,
            busy=lambda: hash_pool.waiting[0] > 0,
        )
        self._uses = CredentialUses(reactor.seconds, time.time, reactor.callLater)
        if link is not None:
            PenaltySync(link, self._penalties)
            VerifiedPasswordSync(link, self._checked)
            KnownNetworkSync(link, self._known)
            ExposureSync(link, self._exposures)
            self._report_guess = BanSync(link, self.banned).report
            self._uses.report = partial(report_uses, link)
        self._salt_secret = salt_secret() or key

    def make_service(self, auth: Auth, explain: Explain, backends: Sequence[Any], names: Names) -> LoginService:
        """Make the login service of a configuration."""
        if self._log is not None:
            self._log.keep_days = explain.keep_days
        self._penalties.first_delay = auth.failure_delay
        self._penalties.max_delay = auth.failure_delay_max
        self._renewals.enabled = auth.renew_hashes
        self._renewals.scram_hashes = frozenset(
            each for each in HASHES if {f"SCRAM-{each}", f"SCRAM-{each}-PLUS"} & set(auth.mechanisms)
        )
        self._revocations.enabled = auth.revoke_exposed == "app"
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
            show_refs=explain.refusals,
            log=self._log,
            uses=auth.backends,
            banned=self.banned,
            on_guess=self._count_guess,
            renewals=self._renewals,
            revocations=self._revocations,
            delegate_separator=auth.master_separator,
            credential_uses=self._uses,
        )

    def set_exposure_recorder(self, take: Callable[[ExposureMark], None]) -> None:
        """Report exposed passwords to `take`, in a process without a master."""
        self._exposures.on_exposed = take

    def set_use_recorder(self, take: Callable[[Sequence[CredentialUse]], None]) -> None:
        """Report uses of app passwords to `take`, in a process without a master."""
        self._uses.report = take

    def use_known_networks(self, file: KnownNetworksFile) -> None:
        """Use the table of `file`, in a process without a master."""
        self._known = self._penalties.known = file.known
        file.known.on_change = file.changed

    def use_bans(self, bans: ServerBans) -> None:
        """Use the bans of the server, in a process without a master, after `use_known_networks`."""
        known = self._known
        save = known.on_change

        def came(rows: list[Row]) -> None:
            save(rows)
            bans.users_came(rows)

        known.on_change = came
        self._report_guess = bans.take
        self.banned.apply(bans.bans.changes())
        bans.send = self.banned.apply

    def _count_guess(self, guess: Guess) -> None:
        self._report_guess(guess)

    def close(self) -> None:
        """Report what waits, and close the files of the records; a later login opens them again."""
        self._uses.flush()
        if self._log is not None:
            self._log.close()

    def status(self) -> dict[str, Json]:
        """Numbers and their limits, for `mailserver status`."""
        return {
            "penalties": [len(self._penalties), MAX_PAIRS],
            "known_networks": [len(self._known), MAX_KNOWN],
        }


def _complain(reason: str) -> None:
    log.warn(
        "logins and refusals are not recorded for `mailserver explain`: {reason}", event="explain-failed", reason=reason
    )
