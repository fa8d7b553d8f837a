"""The session of one connection of a transfer agent, which asks one thing after another and may send requests ahead.

Answers come in the order of the requests. The connection stays open while nothing is asked, as agents keep it for later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mailserver.errors import AddressLoop, ConnectionLost, MailError, TooManyEnds
from mailserver.lookup import wire
from mailserver.lookup.maps import MAPS, Services
from mailserver.session.channel import Channel, Wake

IDLE_TIME: Final = 3600.0
"""Seconds that a connection without requests stays open. Postfix connects again when it needs to."""
UNAVAILABLE: Final = "addresses cannot be looked up at the moment"


class LookupSession:
    """Requests and replies of one connection."""

    mailbox_name: str | None = None

    def __init__(self, channel: Channel, services: Callable[[], Services]) -> None:
        """`services` returns the newest ones: the connection may outlast a reload."""
        self.channel = channel
        self._services = services
        self.command = ""
        self._reader = wire.RequestReader()

    async def run(self) -> None:
        """Serve until the client is gone, or breaks the protocol."""
        try:
            while True:
                self._reader.receive_data(await self._read())
                for request in self._reader.requests():
                    self.channel.write(await self._reply_to(request))
                    # Other clients need their turn, and this one must take its answers.
                    await self.channel.drain()
        except wire.ProtocolError as error:
            self.channel.log("protocol-error", reason=str(error))
            self.channel.write(wire.refused(str(error)))
        except ConnectionLost:
            pass
        finally:
            self.channel.close()

    async def _read(self) -> bytes:
        """The client's octets. Raises: ConnectionLost, wire.ProtocolError for a request that does not end in time."""
        is_inside_request = self._reader.pending
        timeout = self._services().limits.transfer_timeout if is_inside_request else IDLE_TIME
        data = await self.channel.read(timeout)
        if isinstance(data, Wake):
            if is_inside_request:
                raise wire.ProtocolError("a request does not end in time")
            raise ConnectionLost
        return data

    async def _reply_to(self, request: wire.Request) -> bytes:
        if request.key is None:
            return wire.NOT_FOUND
        look_up = MAPS.get(request.map)
        if look_up is None:
            return wire.refused(f"there is no such map: the maps are {', '.join(MAPS)}")
        self.command = request.map
        try:
            data = await look_up(self._services(), request.key)
        except (AddressLoop, TooManyEnds) as error:
            return wire.refused(error.sentence)
        except MailError:
            return wire.unavailable(UNAVAILABLE)
        return wire.NOT_FOUND if data is None else wire.found(data)
