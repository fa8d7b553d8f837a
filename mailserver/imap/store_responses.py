"""The responses of a STORE to a client that knows modseqs (RFC 7162 3.1.3, 3.2.4), or no message numbers (RFC 9586)."""

from __future__ import annotations

from collections.abc import Container, Sequence

from mailserver.imap.session import Session
from mailserver.imap.updates import keyword_lines, lines_at_once
from mailserver.imap.wire import writer
from mailserver.types import ModSeq


async def write_responses(
    session: Session,
    ranges: Sequence[tuple[int, int]],
    *,
    silent: bool,
    refused: Container[int],
    gone: Container[int],
    after: ModSeq | None,
) -> None:
    """FETCH responses for those positions of the view: UID, FLAGS unless `silent`, and MODSEQ if CONDSTORE is on.

    A refused message's flags are sent also then, so that the client need not ask for them. A silent STORE without
    UNCHANGEDSINCE reports messages that changed `after` that modseq. Of messages that no longer exist only those of `gone` are
    reported, with the flags that they would have; the closing sync then has the client note a modseq below their expunge.
    """
    view, uids_only = session.view, "UIDONLY" in session.enabled
    has_modseqs = "CONDSTORE" in session.enabled
    # Between two writes the session waits for a client that does not read.
    step = lines_at_once(session.view.columns.keywords)
    for start, end in ((at, min(at + step, high)) for low, high in ranges for at in range(low, high, step)):
        columns = view.columns
        lines = [keyword_lines(session.mailbox)]
        last_flags = columns.expunged_flags(view.expunged_position) if gone else {}
        for seq, uid in enumerate(view.uids[start:end], start + 1):
            at = columns.position(uid)
            if at < 0 and (uid not in gone or uid not in last_flags):
                continue
            modseq = columns.modseqs[at] if at >= 0 else columns.modseq
            begin = b"* %d UIDFETCH (" % uid if uids_only else b"* %d FETCH (UID %d " % (seq, uid)
            last = b" MODSEQ (%d))\r\n" % modseq if has_modseqs else b")\r\n"
            if not silent or uid in refused:
                mask = columns.flags[at] if at >= 0 else last_flags[uid]
                flags = writer.flags(mask, columns.keywords, uid in view.recent_uids)
                lines.append(b"%bFLAGS %b%b" % (begin, flags, last))
            elif has_modseqs and (after is None or modseq > after):
                lines.append(begin + last.lstrip())
        session.write(b"".join(lines))
        await session.channel.drain()
