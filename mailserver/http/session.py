"""One connection of HTTP/1.1 (RFC 9112), parsed and written by h11.

Problems and solutions:

*   Slow clients: a request must be complete within REQUEST_TIME, and the client may be silent for IDLE_TIME between two
    requests. The connection counts as not logged in, so `[limits] login_time` ends it in any case, and the limit of
    connections for each address applies.
*   Large requests: at most MAX_HEAD octets of a head and MAX_BODY of a body are accepted; a larger announced length is
    refused before the body arrives.
*   Pipelined requests are answered in order, at most MAX_REQUESTS on one connection; other connections run in between.
*   Paths are compared with a table and never lead to a file.
*   Input that is not HTTP, such as mail commands, is answered 400, and the connection closes.
"""

from __future__ import annotations

import inspect
import re
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

import h11

from mailserver.discovery.services import web_port
from mailserver.errors import ConnectionLost, MailError
from mailserver.http.messages import Request, Response, text
from mailserver.http.routes import ROUTES, find_route
from mailserver.http.services import HttpServices
from mailserver.session.channel import Channel, Wake

MAX_HEAD: Final = 16384
"""Maximum length of the request line and the header, in octets."""
MAX_BODY: Final = 65536
MAX_REQUESTS: Final = 100
IDLE_TIME: Final = 15.0
"""Seconds between two requests."""
REQUEST_TIME: Final = 20.0
"""Seconds for a whole request."""
MAX_FIELDS: Final = 20
"""Maximum number of fields in a query."""
LOGGED_PATH: Final = 200

_HOST: Final = re.compile(r"(?P<name>[a-z0-9._-]{0,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(r"https?://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_FIELDS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
"""Default header fields of every response."""


_FORWARDED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
"""Header fields that proxies add."""
_NOT_HERE: Final = "not for this address: [http] metrics_from of the configuration lists the permitted ones"
_BY_PROXY: Final = "not through an HTTP proxy, whose clients are unknown: it can send a PROXY header instead"


class RequestRefused(Exception):
    """The request is refused before its route; `response` is sent, then the connection closes."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class HttpSession:
    """The server's side of one connection."""

    mailbox_name = None

    def __init__(self, channel: Channel, services: HttpServices) -> None:
        self._channel = channel
        self._services = services
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._method = self._path = ""

    @property
    def command(self) -> str:
        """The current or last request."""
        return f"{self._method} {self._path[:LOGGED_PATH]}"

    async def run(self) -> None:
        """Serve until either side closes the connection."""
        try:
            for number in range(1, MAX_REQUESTS + 1):
                if not await self._serve_one(last=number == MAX_REQUESTS):
                    return
                await self._channel.drain()
        except ConnectionLost:
            pass
        finally:
            self._channel.close()

    async def _serve_one(self, *, last: bool) -> bool:
        """Serve one request. May another follow?"""
        self._method = self._path = ""
        try:
            request = await self._read_request()
            if request is None:
                return False
            response = await self._respond(request)
        except RequestRefused as refused:
            response, last = refused.response, True
        except h11.RemoteProtocolError as error:
            response, last = text(error.error_status_hint, _phrase(error.error_status_hint)), True
        self._write(response, last=last)
        self._channel.log("request", method=self._method, path=self._path[:LOGGED_PATH], status=response.status)
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    # --- Reading

    async def _read_request(self) -> Request | None:
        """Read a whole request; None if the client sends none. Raises: RequestRefused, h11.RemoteProtocolError, ConnectionLost."""
        idle_until = self._channel.now() + IDLE_TIME
        deadline = None
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if deadline is None and self._http.trailing_data[0]:
                deadline = self._channel.now() + REQUEST_TIME
            if not await self._read_more(idle_until if deadline is None else deadline):
                if deadline is None:
                    return None
                raise RequestRefused(text(408, "the request did not come in time"))
        if not isinstance(event, h11.Request):
            raise ConnectionLost
        if deadline is None:
            deadline = self._channel.now() + REQUEST_TIME
        self._method = event.method.decode("ascii")
        if {b"content-length", b"transfer-encoding"} <= {name for name, _value in event.headers}:
            # RFC 9112 6.1: a proxy in between may have seen another end of the body.
            raise RequestRefused(text(400, "a body must not have both Content-Length and Transfer-Encoding"))
        host, target = _targets(event)
        self._path, query = _split(target)
        if not self._services.is_host(host):
            raise RequestRefused(text(421, "no such host here"))
        announced = next((int(value) for name, value in event.headers if name == b"content-length"), 0)
        body = await self._read_body(announced, deadline)
        info = self._channel.info
        forwarded = any(name in _FORWARDED for name, _value in event.headers)
        return Request(self._method, host, self._path, query, body, info.peer, info.tls is not None, forwarded)

    async def _read_body(self, announced: int, deadline: float) -> bytes:
        if announced > MAX_BODY:
            raise RequestRefused(text(413, f"at most {MAX_BODY} octets are taken"))
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    going_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                    self._channel.write(self._http.send(going_on) or b"")
                if not await self._read_more(deadline):
                    raise RequestRefused(text(408, "the request did not come in time"))
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise RequestRefused(text(413, f"at most {MAX_BODY} octets are taken"))
                await self._channel.drain()  # ten thousand chunks may have arrived at once: let other connections run
            else:
                return bytes(body)

    async def _read_more(self, deadline: float) -> bool:
        now = self._channel.now()
        data = await self._channel.read(deadline - now) if now < deadline else Wake.TIMEOUT
        if isinstance(data, Wake):
            return False
        self._http.receive_data(data)
        return True

    # --- Answering

    async def _respond(self, request: Request) -> Response:
        route = find_route(ROUTES, request.path)
        if route is None:
            return text(404, "nothing here")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in route.methods:
            allowed = sorted(route.methods | ({"HEAD"} if "GET" in route.methods else set()))
            return text(405, _phrase(405), ("Allow", ", ".join(allowed)))
        if route.monitoring and not self._services.may_monitor(request):
            return text(403, _BY_PROXY if request.forwarded else _NOT_HERE)
        if route.tls_only and not request.secure:
            return self._redirect_to_tls(request)
        try:
            made = route.answer(request, self._services)
            return await made if inspect.isawaitable(made) else made
        except ConnectionLost:
            raise
        except MailError as error:
            return text(503, error.sentence)
        except Exception:
            self._channel.bug(f"HTTP {request.method} {route.path}")
            return text(500, "internal error")

    def _redirect_to_tls(self, request: Request) -> Response:
        """Redirect to the same path at the HTTPS listener."""
        port = web_port(self._services.config)
        if port is None or not request.host or request.method not in ("GET", "HEAD"):
            return text(404, "nothing here without TLS")
        place = request.host if port == 443 else f"{request.host}:{port}"
        target = quote(request.path) + ("?" + urlencode(request.query) if request.query else "")
        return text(302, "this page needs TLS", ("Location", f"https://{place}{target}"))

    def _write(self, response: Response, *, last: bool) -> None:
        """Send a response. Raises: ConnectionLost if h11 cannot send one any more."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise ConnectionLost
        given = {name.lower() for name, _value in response.fields}
        fields = [
            ("Date", formatdate(time(), usegmt=True)),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *response.fields,
            *((name, value) for name, value in _FIELDS if name.lower() not in given),
        ]
        if last:
            fields.append(("Connection", "close"))
        reason = _phrase(response.status).encode("ascii")
        head = h11.Response(status_code=response.status, headers=fields, reason=reason)
        self._channel.write(self._http.send(head) or b"")
        if self._method != "HEAD":
            self._channel.write(self._http.send(h11.Data(data=response.body)) or b"")
        self._channel.write(self._http.send(h11.EndOfMessage()) or b"")


def _targets(event: h11.Request) -> tuple[str, str]:
    """Return the requested host, and the path with its query (RFC 9112 3.2). Raises: RequestRefused."""
    target = event.target.decode("latin-1")
    authority = next((value.decode("latin-1") for name, value in event.headers if name == b"host"), "")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, target = absolute["authority"], absolute["rest"] or "/"
    found = _HOST.fullmatch(authority.strip().lower())
    if found is None:
        raise RequestRefused(text(400, "no host name in the Host field"))
    return found["name"].removesuffix("."), target


def _split(target: str) -> tuple[str, dict[str, str]]:
    """Decode path and query. Raises: RequestRefused."""
    path, _mark, words = target.partition("#")[0].partition("?")
    try:
        decoded = unquote_to_bytes(path.encode("latin-1")).decode("utf-8")
        fields = parse_qsl(words, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise RequestRefused(text(400, "the target cannot be decoded")) from None
    if not decoded.startswith("/") or not all(map(str.isprintable, (decoded, *(value for _name, value in fields)))):
        raise RequestRefused(text(400, "the target must be a path"))
    return decoded, {name.lower(): value for name, value in reversed(fields)}


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase
