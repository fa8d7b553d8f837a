"""A small server on loopback, for what looks at servers or shows itself to them."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self


class LoopbackServer(ABC):
    """Serves one connection after another, in a thread."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):  # it is down already
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """It is closed afterwards. May raise: OSError, ValueError."""

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._server.accept()
                connection.settimeout(20)
                with connection, contextlib.suppress(OSError, ValueError):
                    self.serve(connection)
