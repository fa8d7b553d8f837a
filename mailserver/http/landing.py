"""/: the page of the domain that the requested host belongs to, and of no other."""

from __future__ import annotations

from typing import Final

from mailserver.discovery import landing
from mailserver.discovery.mobileconfig import mobileconfig
from mailserver.discovery.services import domain_of_host, services
from mailserver.http.messages import Request, Response, text
from mailserver.http.route import Route
from mailserver.http.services import HttpServices
from mailserver.session.cost import CONSTANT


def answer(request: Request, services_: HttpServices) -> Response:
    """Answer with the page."""
    config = services_.config
    domain = domain_of_host(config, request.host) or domain_of_host(config, config.server.hostname)
    if domain is None:
        return text(404, "nothing here")
    offered = services(config, domain)
    # In clear text an attacker could replace the profile.
    has_profile = request.secure and mobileconfig(f"user@{domain.name}", domain.name, offered) is not None
    body = landing.page(domain.name, offered, has_authority=services_.authority() is not None, has_profile=has_profile)
    policy = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; form-action 'self'")
    return Response(200, body, "text/html; charset=utf-8", (policy,))


ROUTES: Final = (Route("/", answer, cost=CONSTANT),)
