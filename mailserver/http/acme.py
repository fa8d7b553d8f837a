"""Responses to http-01 challenges of an ACME authority (RFC 8555 8.3).

A response is the requested token and the thumbprint of the account's key, so any worker can make it without knowing the
order. It is useless to others: it validates only orders signed by that key.
"""

from __future__ import annotations

import re
from typing import Final

from mailserver.http.messages import Request, Response, text
from mailserver.http.route import Route
from mailserver.http.services import HttpServices
from mailserver.session.cost import CONSTANT

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")
"""RFC 8555 8.3: base64url."""


def answer(request: Request, services: HttpServices) -> Response:
    """Answer with the key authorization (RFC 8555 8.1)."""
    acme = services.config.acme
    token = request.path.rpartition("/")[2]
    if acme is None or not acme.thumbprint or request.host not in services.config.acme_hosts:
        return text(404, "nothing here")
    if not _TOKEN.fullmatch(token):
        return text(404, "invalid token")
    return Response(200, f"{token}.{acme.thumbprint}".encode("ascii"), "application/octet-stream")


ROUTES: Final = (Route("/.well-known/acme-challenge/{}", answer, cost=CONSTANT),)
