"""An ACME authority that is as a test would have it: honest but for what it is told to do otherwise. It checks no signature."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mailserver.tls.serving import validation
from tests.tls.site import authority

Answer = tuple[int, dict[str, str], bytes]


class Authority:
    """`odd` has, by path, what is answered instead: a function of the answer that an honest one would give."""

    def __init__(self, directory: Path) -> None:
        self.ca_file = directory / "acme-ca.pem"
        ca = validation.make_ca("Of the directory's own address")
        self.ca_file.write_bytes(ca[0])
        pair = validation.issue(ca, ["127.0.0.1"])
        (directory / "web.pem").write_bytes(pair[0] + pair[1])
        self.odd: dict[str, Callable[[Answer], Answer]] = {}
        self.asked: list[tuple[str, Any]] = []
        """Paths, and what was posted there."""
        self.host = ""
        self.status = "pending"
        self.issued = b""
        self.windows = False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "web.pem")
        self._web = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._web.daemon_threads = True
        self._web.socket = context.wrap_socket(self._web.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._web.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Authority]:
        """In a thread."""
        threading.Thread(target=self._web.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._web.shutdown()
            self._web.server_close()

    def paths(self) -> list[str]:
        return [path for path, _body in self.asked]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ours = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._serve(None)

            def do_HEAD(self) -> None:
                self._serve(None, body=False)

            def do_POST(self) -> None:
                octets = self.rfile.read(int(self.headers["Content-Length"]))
                self._serve(json.loads(_decoded(json.loads(octets)["payload"]) or b"null"))

            def _serve(self, posted: Any, *, body: bool = True) -> None:
                ours.asked.append((self.path, posted))
                answer = ours._honest(self.path, posted)
                status, fields, octets = ours.odd.get(self.path, lambda same: same)(answer)
                with contextlib.suppress(OSError):  # a client may have seen enough
                    self.send_response(status)
                    for name, value in {"Replay-Nonce": "bm9uY2U", **fields}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(octets)))
                    self.end_headers()
                    if body:
                        self.wfile.write(octets)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler

    def _honest(self, path: str, posted: Any) -> Answer:
        url = self.url
        match path:
            case "/dir":
                names = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
                more = {"renewalInfo": f"{url}/info"} if self.windows else {}
                return answer({**{name: f"{url}/{name}" for name in names}, **more})
            case "/newAccount":
                return answer({"status": "valid"}, 201, Location=f"{url}/account")
            case "/newOrder":
                self.host, self.status = posted["identifiers"][0]["value"], "pending"
                return answer(self._order(), 201, Location=f"{url}/order")
            case "/authz":
                challenge = {"type": "http-01", "url": f"{url}/chall", "status": "pending", "token": "t" * 43}
                if self.status != "pending":
                    challenge["status"] = "valid"
                return answer(
                    {
                        "identifier": {"type": "dns", "value": self.host},
                        "status": "pending" if self.status == "pending" else "valid",
                        "challenges": [challenge],
                    }
                )
            case "/chall":
                self.status = "ready"
                body = {"type": "http-01", "url": f"{url}/chall", "status": "valid", "token": "t" * 43}
                return answer(body, Link=f'<{url}/authz>;rel="up"')
            case "/finalize":
                self.issued, self.status = issued(_decoded(posted["csr"])), "valid"
                return answer(self._order())
            case "/order":
                return answer(self._order())
            case "/cert":
                return 200, {"Content-Type": "application/pem-certificate-chain"}, self.issued
        return 200, {}, b""

    def _order(self) -> dict[str, Any]:
        more = {"certificate": f"{self.url}/cert"} if self.status == "valid" else {}
        return {
            "status": self.status,
            "identifiers": [{"type": "dns", "value": self.host}],
            "authorizations": [f"{self.url}/authz"],
            "finalize": f"{self.url}/finalize",
            **more,
        }


def answer(body: Any, status: int = 200, **fields: str) -> Answer:
    """In JSON."""
    return status, {"Content-Type": "application/json", **fields}, json.dumps(body).encode()


def problem(code: str, detail: str, status: int = 403, **fields: str) -> Answer:
    """An error (RFC 8555 6.7)."""
    body = {"type": f"urn:ietf:params:acme:error:{code}", "detail": detail}
    return status, {"Content-Type": "application/problem+json", **fields}, json.dumps(body).encode()


def issued(csr: bytes, names: list[str] | None = None) -> bytes:
    """A certificate for the key of a request, with the authority's of the tests behind it; PEM."""
    request = x509.load_der_x509_csr(csr)
    ca = x509.load_pem_x509_certificate(authority()[0])
    key = serialization.load_pem_private_key(authority()[1], None)
    wanted = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if names is not None:
        wanted = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    model = x509.load_pem_x509_certificate(validation.issue(authority(), ["model.example.test"])[0])
    made = (
        x509.CertificateBuilder(ca.subject, x509.Name([]), request.public_key(), x509.random_serial_number())
        .not_valid_before(model.not_valid_before_utc)
        .not_valid_after(model.not_valid_after_utc)
        .add_extension(wanted, critical=True)
        .add_extension(model.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value, critical=False)
        .add_extension(model.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value, critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    return made.public_bytes(serialization.Encoding.PEM) + authority()[0]


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
