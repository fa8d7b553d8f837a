"""The table of paths. A new page is a module with its ROUTES and a word here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mailserver.http import acme, client_setup, health, landing, metrics, private_ca
from mailserver.http.messages import Route

ROUTES: Final[tuple[Route, ...]] = (
    *acme.ROUTES,
    *landing.ROUTES,
    *client_setup.ROUTES,
    *private_ca.ROUTES,
    *health.ROUTES,
    *metrics.ROUTES,
)


def find_route(routes: Iterable[Route], path: str) -> Route | None:
    """The first row that fits."""
    return next((route for route in routes if route.fits(path)), None)
