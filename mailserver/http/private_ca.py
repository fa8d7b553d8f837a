"""The published private authority, with instructions for each mail client.

The certificate is public. A client that fetches it in clear text, or by HTTPS before the authority is trusted, must compare
the fingerprint; the page says so.
"""

from __future__ import annotations

from typing import Final

from mailserver.config.model import Config
from mailserver.discovery import ca_guide
from mailserver.discovery.ca_guide import Facts
from mailserver.discovery.services import domain_of_host
from mailserver.http.messages import Request, Response, text
from mailserver.http.route import Route
from mailserver.http.services import HttpServices
from mailserver.session.cost import CONSTANT

_CERTIFICATE: Final = "application/x-x509-ca-cert"


def answer_page(request: Request, services: HttpServices) -> Response:
    """Answer with the guides, with the names and fingerprints of the requested site."""
    facts = _facts(request, services)
    return _nothing() if facts is None else Response(200, ca_guide.page(facts), "text/html; charset=utf-8")


def answer_pem(request: Request, services: HttpServices) -> Response:
    """Answer with the certificate as PEM."""
    facts = _facts(request, services)
    return _nothing() if facts is None else _file(ca_guide.pem(facts.der), "ca.crt", _CERTIFICATE)


def answer_der(request: Request, services: HttpServices) -> Response:
    """Answer with the certificate as DER."""
    facts = _facts(request, services)
    return _nothing() if facts is None else _file(facts.der, "ca.der", _CERTIFICATE)


def answer_profile(request: Request, services: HttpServices) -> Response:
    """Answer with a profile for Apple's systems, signed by the key of the requested host."""
    facts = _facts(request, services)
    if facts is None:
        return _nothing()
    host = request.host or services.config.server.hostname
    signed = services.sign(host, ca_guide.profile(facts))
    return _file(signed, "ca.mobileconfig", "application/x-apple-aspen-config")


def answer_list(_request: Request, services: HttpServices) -> Response:
    """Answer with the revocation list (RFC 5280 5), DER as RFC 2585 4.2 demands."""
    authority = services.authority()
    if authority is None or not authority.crl:
        return text(404, "no revocation list is published here")
    return _file(authority.crl, "ca.crl", "application/pkix-crl")


def _facts(request: Request, services: HttpServices) -> Facts | None:
    """Return the values for the guides; None without a published authority."""
    authority = services.authority()
    if authority is None:
        return None
    hosts = _hosts(request.host, services.config)
    fingerprints = {host: services.fingerprint(host) for host in hosts}
    has_users = any(
        domain.client_certificates != "none"
        for domain in services.config.domains
        if not set(hosts).isdisjoint(domain.hosts)
    )
    until = f"{authority.not_after:%Y-%m-%d}"
    return Facts(authority.name, authority.der, until, fingerprints, "", bool(authority.crl), has_users)


def _hosts(asked: str, config: Config) -> list[str]:
    """Return hosts of the requested domain alone: other domains are not disclosed."""
    domain = domain_of_host(config, asked)
    plain: list[str] = [host for host in domain.hosts if not host.startswith("*.")] if domain else []
    return plain or [config.server.hostname]


def _file(octets: bytes, name: str, content_type: str) -> Response:
    return Response(200, octets, content_type, (("Content-Disposition", f'attachment; filename="{name}"'),))


def _nothing() -> Response:
    return text(404, "no authority is published here: [tls] private_ca names none")


ROUTES: Final = (
    Route("/ca", answer_page, cost=CONSTANT),
    Route("/ca.crt", answer_pem, cost=CONSTANT),
    Route("/ca.der", answer_der, cost=CONSTANT),
    Route("/ca.mobileconfig", answer_profile, cost=CONSTANT),
    Route("/ca.crl", answer_list, cost=CONSTANT),
)
