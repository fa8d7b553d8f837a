"""Documents for automatic client configuration, and the MTA-STS policy for other mail servers.

No answer depends on whether a user exists: answers for a domain differ only in the address. Its domain is shown in ASCII,
the only form in which mail is accepted here.
"""

from __future__ import annotations

from typing import Final

from mailserver.config.model import Domain
from mailserver.discovery import autodiscover as outlook
from mailserver.discovery import mta_sts
from mailserver.discovery.autoconfig import autoconfig
from mailserver.discovery.mobileconfig import mobileconfig
from mailserver.discovery.services import Service, find_domain, services, split_address
from mailserver.http.messages import Request, Response, text
from mailserver.http.route import Route
from mailserver.http.services import DISCOVERY_LABELS, HttpServices
from mailserver.session.cost import CONSTANT

_XML: Final = "text/xml; charset=utf-8"


def answer_autoconfig(request: Request, services_: HttpServices) -> Response:
    """Choose the domain by the address, or without one by the requested host name."""
    address = request.query.get("emailaddress", "")
    if address and split_address(address) is None:
        return text(400, "emailaddress must be an address")
    domain, offered = _offered(services_, address.rpartition("@")[2] or _mail_domain(request.host))
    return Response(200, autoconfig(domain.name, offered), _XML) if domain and offered else _nothing()


def answer_autodiscover(request: Request, services_: HttpServices) -> Response:
    """Answer with the settings of the address in the request."""
    if request.method != "POST":
        return text(405, "a request is a POST", ("Allow", "POST"))
    try:
        asked = outlook.parse_request(request.body)
    except outlook.BadAutodiscoverRequest as bad:
        return Response(400, outlook.refusal(600, str(bad)), _XML)
    parts = split_address(asked.address)
    if parts is None:
        return Response(400, outlook.refusal(600, "EMailAddress must be an address"), _XML)
    if asked.schema != outlook.OUTLOOK:
        return Response(200, outlook.refusal(601, "only Outlook's response schema 2006a is known"), _XML)
    domain, offered = _offered(services_, parts[1])
    if not domain or not offered:
        return _nothing()
    return Response(200, outlook.autodiscover(f"{parts[0]}@{domain.name}", offered), _XML)


def answer_profile(request: Request, services_: HttpServices) -> Response:
    """Answer with a profile signed by the domain's key, so that the device shows its origin."""
    address = request.query.get("emailaddress", "")
    parts = split_address(address)
    if parts is None:
        return text(400, "needs ?emailaddress=, an address")
    domain, offered = _offered(services_, parts[1])
    profile = mobileconfig(f"{parts[0]}@{domain.name}", domain.name, offered) if domain else None
    if domain is None or profile is None:
        return _nothing()
    disposition = f'attachment; filename="{domain.name}.mobileconfig"'
    return Response(
        200,
        services_.sign(offered[0].host, profile),
        "application/x-apple-aspen-config",
        (("Content-Disposition", disposition),),
    )


def answer_policy(request: Request, services_: HttpServices) -> Response:
    """Answer at mta-sts.DOMAIN alone (RFC 8461 3.2)."""
    label, _dot, name = request.host.partition(".")
    domain = find_domain(services_.config, name) if label == "mta-sts" else None
    policy = mta_sts.policy(domain) if domain else None
    return _nothing() if policy is None else Response(200, policy, "text/plain")


def _offered(services_: HttpServices, name: str) -> tuple[Domain | None, tuple[Service, ...]]:
    domain = find_domain(services_.config, name)
    return domain, services(services_.config, domain) if domain else ()


def _mail_domain(host: str) -> str:
    label, _dot, parent = host.partition(".")
    return parent if label in DISCOVERY_LABELS else host


def _nothing() -> Response:
    return text(404, "no such domain here")


ROUTES: Final = (
    Route("/.well-known/autoconfig/mail/config-v1.1.xml", answer_autoconfig, cost=CONSTANT),
    Route("/mail/config-v1.1.xml", answer_autoconfig, cost=CONSTANT),
    Route(
        "/autodiscover/autodiscover.xml",
        answer_autodiscover,
        methods=frozenset({"GET", "POST"}),
        ignores_case=True,
        tls_only=True,
        cost=CONSTANT,
    ),
    Route("/profile.mobileconfig", answer_profile, tls_only=True, cost=CONSTANT),
    Route("/.well-known/mta-sts.txt", answer_policy, tls_only=True, cost=CONSTANT),
)
