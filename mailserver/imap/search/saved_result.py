"""The saved result of a search, `$` (RFC 5182). The session keeps its UIDs; `results.chosen` says which."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mailserver.errors import MailError
from mailserver.imap.search.results import Options, chosen
from mailserver.imap.session import Session


@contextmanager
def saving(session: Session, options: Options | None) -> Iterator[None]:
    """Drop the saved result if the search that should replace it is answered NO (2.1)."""
    try:
        yield
    except MailError as error:
        if options is not None and "SAVE" in options and error.imap_status == "NO":
            session.saved_result = array("I")
        raise


def save_result(session: Session, options: Options | None, positions: Sequence[int]) -> None:
    """Save the result, if that was asked for; `positions` of the view in the result's order."""
    if options is None or "SAVE" not in options:
        return
    uids = session.view.uids
    found = chosen(options, positions)
    if isinstance(found, range):
        session.saved_result = uids[found.start : found.stop]
    else:
        session.saved_result = array("I", [uids[at] for at in sorted(found)])
