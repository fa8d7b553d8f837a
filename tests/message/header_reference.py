"""A plain reader of headers, field by field: what `HeaderSummary` has to agree with."""

from __future__ import annotations

from mailserver.message.dates import sent_day
from mailserver.message.envelope import ENVELOPE_FIELDS, add_field, render_envelope
from mailserver.message.header_summary import KEPT
from mailserver.message.headers import FIELD, unfold
from mailserver.message.summary import INCOMPLETE, KEPT_LIMIT
from mailserver.message.text import fold, line_text


def read(header: bytes) -> tuple[bytes, bytes, str, int | None]:
    """Return the envelope, the kept lines, the text for SEARCH and the day of a header with CRLF line ends."""
    by_name: dict[bytes, bytes] = {}
    kept: list[bytes] = []
    words: list[str] = []
    for match in FIELD.finditer(header):
        name, line = match[1].lower(), unfold(match[2])
        if name in ENVELOPE_FIELDS:
            add_field(by_name, name, line)
        if name in KEPT:
            kept.append(match[0])
            words.append(line_text(name, line))
    if kept and not kept[-1].endswith(b"\n"):
        kept.append(b"\r\n")
    lines, text = b"".join(kept), fold("".join(words))
    if len(lines) > KEPT_LIMIT:
        lines, text = INCOMPLETE.encode("ascii"), INCOMPLETE
    date = by_name.get(b"date")
    return render_envelope(by_name), lines, text, sent_day(date) if date is not None else None
