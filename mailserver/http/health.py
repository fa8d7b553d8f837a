"""/health: whether all workers respond."""

from __future__ import annotations

from typing import Final

from mailserver.http.messages import Request, Response, text
from mailserver.http.route import Route
from mailserver.http.services import HttpServices
from mailserver.session.cost import CONSTANT


async def answer(_request: Request, services: HttpServices) -> Response:
    """Answer 200, or 503 with a line for each worker that does not respond."""
    workers = (await services.query_status())["workers"]
    silent = [f"worker {worker['worker']} does not answer" for worker in workers if not worker["answers"]]
    return text(503, "\n".join(silent)) if silent or not workers else text(200, "ok")


ROUTES: Final = (Route("/health", answer, monitoring=True, cost=CONSTANT),)
