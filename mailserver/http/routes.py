"""The table of paths. A new page is a module with ROUTES and a line here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mailserver.http import acme, client_setup, health, landing, metrics, private_ca
from mailserver.http.route import Route

ROUTES: Final[tuple[Route, ...]] = (
    *acme.ROUTES,
    *landing.ROUTES,
    *client_setup.ROUTES,
    *private_ca.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
)


def find_route(routes: Iterable[Route], path: str) -> Route | None:
    """Return the first route that matches."""
    return next((route for route in routes if route.matches(path)), None)
