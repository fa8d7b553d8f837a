"""KeyUpdate without end (RFC 8446 4.6.3), by the TLS library below Python's."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import socket
from pathlib import Path
from typing import Any

import pytest

needs_library = pytest.mark.skipif(not hasattr(_ssl, "__file__"), reason="this Python has its TLS library built in")


class KeyUpdater:
    """A peer that asks for new keys: neither `ssl` nor pyOpenSSL has the call, but the library below `ssl` does."""

    def __init__(self, layer: Any, transport: Any, pem: Path | None = None) -> None:
        """A client, or, with a certificate and its key in a file, a server."""
        self.layer, self.transport = layer, transport
        self.library = ctypes.CDLL(_ssl.__file__)
        for name in ("TLS_client_method", "TLS_server_method", "SSL_CTX_new", "SSL_new"):
            getattr(self.library, name).restype = ctypes.c_void_p
        method = self.library.TLS_client_method() if pem is None else self.library.TLS_server_method()
        context = ctypes.c_void_p(self.library.SSL_CTX_new(ctypes.c_void_p(method)))
        if pem is not None:
            assert self.library.SSL_CTX_use_certificate_file(context, bytes(pem), 1) == 1
            assert self.library.SSL_CTX_use_PrivateKey_file(context, bytes(pem), 1) == 1
        self.ssl = ctypes.c_void_p(self.library.SSL_new(context))
        self.near, far = socket.socketpair()
        far.setblocking(False)
        self.near.setblocking(False)
        self.far = far
        self.library.SSL_set_fd(self.ssl, far.fileno())
        if pem is None:
            self.library.SSL_set_connect_state(self.ssl)
        else:
            self.library.SSL_set_accept_state(self.ssl)
        while self.library.SSL_do_handshake(self.ssl) != 1:
            self.carry()
            if transport.value():
                self.near.sendall(transport.value())
                transport.clear()
        self.carry()

    def carry(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self.near.recv(65536):
                self.layer.dataReceived(data)

    def update(self, times: int) -> None:
        """Ask for new keys, to be answered with new keys, so many times (RFC 8446 4.6.3)."""
        for _each in range(times):
            if self.transport.disconnected:
                return
            self.library.SSL_key_update(self.ssl, 1)
            self.library.SSL_do_handshake(self.ssl)
            self.carry()

    def close(self) -> None:
        self.near.close()
        self.far.close()
