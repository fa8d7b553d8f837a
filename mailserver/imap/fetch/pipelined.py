"""Pipelined FETCH commands that differ in the message number alone, answered in one step.

Programs that ask for each message's flags in a command of its own send hundreds before they read. Parsing each by itself
costs many times the work of its response. Each still gets its own lines, in its turn.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache
from itertools import chain
from typing import Final

from mailserver.imap.fetch.cached import cached_responses
from mailserver.imap.fetch.plan import CHUNK, FetchPlan, Rows
from mailserver.imap.fetch.response import FetchResponse
from mailserver.imap.session import Session

MOST: Final = 256
"""Commands that are answered before other clients have their turn."""
FEW: Final = 8
"""Commands that are tried first, so that a run which cannot be answered here costs little."""
LONGEST: Final = 256
"""Octets of the text that they have in common."""
_DONE: Final = b"%b OK FETCH completed\r\n"


def answer_alike(session: Session, plan: FetchPlan, tail: bytes) -> None:
    """Answer the FETCH commands that follow one which has been answered OK, and ask for the same items of one message each.

    `tail` is the items as the client wrote them. A command that is in any way unusual is left to be parsed by itself, and so
    is everything while there are unsolicited responses to send.
    """
    selected = session.mailbox
    view = selected.view
    has_literal = plan.common_section is not None
    if plan.sets_seen or plan.measured or plan.needs_summary or plan.lookups or (plan.needs_file and not has_literal):
        return
    if len(tail) > LONGEST:
        return
    if not view.is_synced or selected.live.unsettled or view.behind():
        return
    line, few, many = _patterns(tail)
    # The flags of a \Recent message are not all in the columns.
    first = view.recent_uids.first if plan.has_flags else None
    most = view.count if first is None else bisect_left(view.uids, first, 0, view.count)
    found = session.input.peek_run(line, few)
    seqs = [int(number) for _tag, number in found]
    if len(seqs) == FEW and max(seqs) <= most:
        found = session.input.peek_run(line, many)
        seqs = [int(number) for _tag, number in found]
    wrong = next((at for at, seq in enumerate(seqs) if seq > most), len(seqs))
    del found[wrong:], seqs[wrong:]
    if not found:
        return
    columns, places = view.columns, [seq - 1 for seq in seqs]
    uids, flags, sizes, dates, modseqs = (
        [column[at] for at in places]
        for column in (columns.uids, columns.flags, columns.sizes, columns.dates, columns.modseqs)
    )
    rows = Rows(seqs, uids, flags, sizes, dates, gone=False, modseqs=modseqs)
    cells = FetchResponse(session, selected, plan, frozenset()).columns(rows)
    tags = [tag for tag, _number in found]
    if has_literal:
        answers: list[bytes] = []
        size = 0
        for tag, response in zip(tags, cached_responses(selected, plan, rows, cells, utf8=session.utf8), strict=False):
            answers += response, _DONE % tag
            size += len(response)
            if size >= CHUNK:
                break
        del found[len(answers) // 2 :]
        session.write(b"".join(answers))
    else:
        session.write((plan.line + _DONE) * len(found) % tuple(chain.from_iterable(zip(*cells, tags, strict=True))))
    session.input.skip(sum(len(tag) + len(number) for tag, number in found) + len(found) * len(b" FETCH  \r\n" + tail))


@lru_cache(maxsize=64)
def _patterns(tail: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes], re.Pattern[bytes]]:
    """The patterns of one such command, with its tag and number as groups; of a few, and of many."""
    command = rb"%b[A-Za-z0-9.]{1,64}) FETCH %b[1-9][0-9]{0,8}) " + re.escape(tail).replace(b"%", b"%%") + rb"\r\n"
    line, one = command % (b"(", b"("), command % (b"(?:", b"(?:")
    return re.compile(line), re.compile(b"(?:%b){1,%d}" % (one, FEW)), re.compile(b"(?:%b){1,%d}" % (one, MOST))
