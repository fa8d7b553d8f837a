"""What the administrator asks of the account at an ACME authority, of a running server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Answer, Arguments, BadRequest, Command, DataAnswer
from mailserver.net.certificates.acme import QUIET, AcmeCertificates
from mailserver.net.certificates.certificates import Certificates
from mailserver.net.log.events import log
from mailserver.tls.acme import account
from mailserver.tls.acme.child import NotObtained
from mailserver.tls.changes.transaction import Refused
from mailserver.tls.state.history import CannotRecord

NO_TABLE: Final = "the configuration has no [acme]"
_UNDER_WAY: Final = f"orders are under way, which the account's key signs; no other begins for {QUIET / 60:g} minutes: try again in some"

T = TypeVar("T")


class AcmeAccount:
    """Its key signs every order, so none runs while that changes."""

    def __init__(
        self,
        reactor: Any,
        *,
        config: Callable[[], Config],
        orders: AcmeCertificates,
        certificates: Certificates,
        reload: Callable[[], Awaitable[Answer]],
    ) -> None:
        """`reload` has all workers answer with the account's new key."""
        self._reactor = reactor
        self._config = config
        self._orders = orders
        orders.first = self.finish
        self._certificates = certificates
        self._reload = reload

    def commands(self) -> dict[str, Command]:
        """For the control socket, by name."""
        return {"acme-account": self._account, "acme-rollover": self._roll_over, "acme-revoke": self._revoke}

    async def finish(self) -> None:
        """End a change of keys that an earlier process has begun."""
        try:
            finished = await self._in_thread(account.finish_roll_over, self._config())
        except (NotObtained, CannotRecord) as error:
            log.warn("{line}", line=f"acme: the change of the account's key that was begun is not ended: {error}")
            return
        if finished:
            log.info("{line}", line="acme: the account has its new key, as was begun before")
            await self._reload()

    # --- Commands

    def _account(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """{"what": "show", "update" or "deactivate"}."""
        what = arguments.get("what")
        if set(arguments) != {"what"} or what not in ("show", "update", "deactivate"):
            raise BadRequest("takes what: show, update or deactivate")

        async def show() -> DataAnswer:
            row = await self._in_thread(lambda: account.describe(self._config(), update=what == "update"))
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
        """Change the account's key, with no order under way, and have all workers know."""
        with self._orders.held_up() as quiet:
            if not quiet:
                return False, [_UNDER_WAY]
            await self._in_thread(change, self._config())
            log.info("{line}", line=f"acme: {done}")
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
            by_account = await self._in_thread(account.revoke, self._config(), pair, reason)
            line = f"{host}: revoked, SHA-256 {pair.fingerprint[:16]}, {reason}"
            if not by_account:
                line += "; its own key has signed that, as the account here did not ask for it"
            log.info("{line}", line=f"acme: {line}")
            await self._certificates.revoked(pair.fingerprint)
            if not is_served:
                return DataAnswer({}, lines=(line,))
            if host in self._config().acme_hosts:
                self._orders.hurry([host])
                return DataAnswer(
                    {}, lines=(line, f"{host}: another is asked for, which `mailserver acme status` shows")
                )
            return DataAnswer({}, lines=(line, f"{host}: is still served with it: give it another, with a new key"))

        return self._answer(revoke())

    def _answer(self, work: Any) -> Deferred[DataAnswer]:
        async def answer() -> DataAnswer:
            if self._config().acme is None:
                work.close()
                return DataAnswer({}, ok=False, lines=(NO_TABLE,))
            try:
                told: DataAnswer = await work
            except (NotObtained, CannotRecord) as error:
                return DataAnswer({}, ok=False, lines=(str(error),))
            except Refused as refused:
                return DataAnswer({}, ok=False, lines=tuple(refused.lines))
            return told

        return Deferred.fromCoroutine(answer())

    def _in_thread(self, call: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)
