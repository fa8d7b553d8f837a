"""A relay with TLS on both sides, which records what mail programs and the server say: which commands a program uses."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from tests.server import Server, free_ports

HOSTS = ("127.0.0.1", "::1")


class _Direction:
    """What one side of a connection has sent, decompressed from where COMPRESS=DEFLATE (RFC 4978) begins, since it was cleared."""

    def __init__(self, last_line: bytes) -> None:
        """`last_line` is the last before the compression."""
        self.octets = bytearray()
        self._last_line = last_line
        self._start = 0

    def clear(self) -> None:
        self._start = len(self._whole())

    @property
    def text(self) -> str:
        return self._whole()[self._start :].decode(errors="replace")

    def _whole(self) -> bytes:
        before, line, rest = bytes(self.octets).partition(self._last_line)
        return before + line + zlib.decompressobj(-zlib.MAX_WBITS).decompress(rest) if line else before


class Recorder:
    """Relays to IMAP over TLS from a port of its own, under the certificate of `mail.example.test` and `localhost`."""

    def __init__(self, server: Server) -> None:
        [self.port] = free_ports(1)
        self._server = server
        self._connections: list[tuple[_Direction, _Direction]] = []
        self._loop = asyncio.new_event_loop()
        self._pumps: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def from_clients(self) -> str:
        """What clients have sent, one connection after the other."""
        return "".join(sent.text for sent, _received in self._connections)

    @property
    def from_server(self) -> str:
        """What the server has sent, one connection after the other."""
        return "".join(received.text for _sent, received in self._connections)

    def commands(self, pattern: str) -> list[str]:
        """Commands, without their tags, which a regular expression matches from their beginning."""
        return re.findall(rf"(?mi)^[A-Za-z0-9]+ ({pattern}[^\r\n]*)\r?$", self.from_clients)

    def refusals(self) -> list[str]:
        """Tagged NO and BAD, and BYE before a LOGOUT."""
        return re.findall(r"(?m)^(?:\w+ (?:NO|BAD)|\* BYE (?!logging out))[^\r\n]*", self.from_server)

    def clear(self) -> None:
        """Forget what has been said; open connections continue."""
        for sent, received in self._connections:
            sent.clear()
            received.clear()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = self._server.dir / "certs"
        context.load_cert_chain(files / "mail.example.test.pem", files / "mail.example.test.key")
        start = asyncio.start_server(self._relay, HOSTS, self.port, ssl=context)
        listener = self._loop.run_until_complete(start)
        self._ready.set()
        self._loop.run_forever()
        listener.close()
        for pump in self._pumps:
            pump.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._pumps, return_exceptions=True))
        self._loop.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.create_default_context(cafile=str(self._server.ca))
        context.check_hostname = False
        there, to_server = await asyncio.open_connection(HOSTS[0], self._server.port("imaps"), ssl=context)
        sent, received = _Direction(b"COMPRESS DEFLATE\r\n"), _Direction(b"OK DEFLATE active\r\n")
        self._connections.append((sent, received))
        for pump in (self._pump(reader, to_server, sent.octets), self._pump(there, writer, received.octets)):
            task = self._loop.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytearray) -> None:
        try:
            while piece := await reader.read(65536):
                text += piece
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass  # one side has gone away, which ends this connection alone
        finally:
            writer.close()


@contextmanager
def recording(server: Server) -> Iterator[Recorder]:
    """A recorder that runs until the block exits."""
    recorder = Recorder(server)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()
