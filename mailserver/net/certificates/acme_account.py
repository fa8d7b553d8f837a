"""The control socket's commands about the account at an ACME authority."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Answer, Arguments, BadRequest, Command, DataAnswer
from mailserver.net.certificates.acme import QUIET, AcmeCertificates
from mailserver.net.certificates.certificates import Certificates
from mailserver.net.connection.coroutines import in_thread
from mailserver.net.log.events import log
from mailserver.tls.acme import account
from mailserver.tls.acme.child import AcmeError
from mailserver.tls.changes.transaction import ChangeRefused
from mailserver.tls.state.history import CannotRecord

NO_TABLE: Final = "the configuration has no [acme]"
_UNDER_WAY: Final = (
    f"orders signed with the account's key are running; none will start for {QUIET / 60:g} minutes: try again soon"
)


class AcmeAccount:
    """Changes of the account. Its key signs every order, so no order may run during a change of keys."""

    def __init__(
        self,
        reactor: Any,
        *,
        config: Callable[[], Config],
        orders: AcmeCertificates,
        certificates: Certificates,
        reload: Callable[[], Awaitable[Answer]],
    ) -> None:
        """`reload` makes all workers answer challenges with the account's new key."""
        self._reactor = reactor
        self._config = config
        self._orders = orders
        orders.first = self.finish
        self._certificates = certificates
        self._reload = reload

    def commands(self) -> dict[str, Command]:
        """Return the control socket's commands, by name."""
        return {"acme-account": self._account, "acme-rollover": self._roll_over, "acme-revoke": self._revoke}

    async def finish(self) -> None:
        """Complete a change of keys that an earlier process has begun."""
        try:
            finished = await in_thread(self._reactor, account.finish_roll_over, self._config())
        except (AcmeError, CannotRecord) as error:
            log.warn(
                "acme: the interrupted change of the account's key cannot be completed: {reason}",
                event="acme-key-change-pending",
                reason=str(error),
            )
            return
        if finished:
            log.info("acme: the account has its new key: the interrupted change is complete", event="acme-key-changed")
            await self._reload()

    # --- Commands

    def _account(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """{"what": "show", "update" or "deactivate"}."""
        what = arguments.get("what")
        if set(arguments) != {"what"} or what not in ("show", "update", "deactivate"):
            raise BadRequest("takes what: show, update or deactivate")

        async def show() -> DataAnswer:
            row = await in_thread(self._reactor, lambda: account.describe(self._config(), update=what == "update"))
            return DataAnswer(dict(row))

        return self._answer(self._deactivate() if what == "deactivate" else show())

    async def _deactivate(self) -> DataAnswer:
        ok, lines = await self._changed(account.deactivate, "the account has ended; the next order makes another")
        return DataAnswer({}, ok=ok, lines=tuple(lines))

    def _roll_over(self, arguments: Arguments) -> Deferred[DataAnswer]:
        if arguments:
            raise BadRequest("takes nothing")

        async def roll_over() -> DataAnswer:
            ok, lines = await self._changed(account.roll_over, "the account has a new key")
            return DataAnswer({}, ok=ok, lines=tuple(lines))

        return self._answer(roll_over())

    async def _changed(self, change: Callable[[Config], None], done: str) -> Answer:
        """Change the account's key while no order runs, and give it to all workers."""
        with self._orders.pause() as quiet:
            if not quiet:
                return False, [_UNDER_WAY]
            await in_thread(self._reactor, change, self._config())
            log.info("acme: {done}", event="acme-account-changed", done=done)
            ok, lines = await self._reload()
        return ok, [done, *([] if ok else lines)]

    def _revoke(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """{"host": name, "id": number of an activation, or "" for what is served, "reason": one of REASONS}."""
        texts = all(isinstance(value, str) for value in arguments.values())
        if set(arguments) != {"host", "id", "reason"} or not texts or arguments["reason"] not in account.REASONS:
            raise BadRequest(f"takes texts: host, id, reason; reasons are {', '.join(account.REASONS)}")
        host, number, reason = arguments["host"], arguments["id"], arguments["reason"]
        if number and not (number.isdecimal() and len(number) < 18):
            raise BadRequest("id is the number of an activation")

        async def revoke() -> DataAnswer:
            pair, is_served = await self._certificates.recorded(host, int(number) if number else None)
            by_account = await in_thread(self._reactor, account.revoke, self._config(), pair, reason)
            line = f"{host}: revoked, SHA-256 {pair.fingerprint[:16]}, {reason}"
            if not by_account:
                line += "; its own key signed the request, as this server's account did not order it"
            log.info("acme: {done}", event="acme-certificate-revoked", done=line)
            await self._certificates.revoked(pair.fingerprint)
            if not is_served:
                return DataAnswer({}, lines=(line,))
            if host in self._config().acme_hosts:
                self._orders.order_now([host])
                return DataAnswer({}, lines=(line, f"{host}: another is ordered; `mailserver acme status` shows it"))
            return DataAnswer({}, lines=(line, f"{host}: is still served with it: replace it by one with a new key"))

        return self._answer(revoke())

    def _answer(self, work: Any) -> Deferred[DataAnswer]:
        async def answer() -> DataAnswer:
            if self._config().acme is None:
                work.close()
                return DataAnswer({}, ok=False, lines=(NO_TABLE,))
            try:
                answer: DataAnswer = await work
            except (AcmeError, CannotRecord) as error:
                return DataAnswer({}, ok=False, lines=(str(error),))
            except ChangeRefused as refused:
                return DataAnswer({}, ok=False, lines=tuple(refused.lines))
            return answer

        return Deferred.fromCoroutine(answer())
