"""What DNS says about a key, compared with the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailserver.dkim.keys import BadKey, parse_record

MISSING: Final = "there is no TXT record of this name: publish the line that `mailserver dkim show` prints"


def fault(record: str, found: Sequence[str]) -> str:
    """Why receivers cannot use a key, in a sentence; "" if they can.

    `record` is the text of our record, `found` the texts at its name. Other tags than those of the key may differ.
    """
    if not found:
        return MISSING
    if len(found) > 1:
        return f"there are {len(found)} TXT records of this name, and receivers may take any of them: leave one"
    try:
        published = parse_record(found[0])
    except BadKey as error:
        return f"the record {error}: publish the line that `mailserver dkim show` prints, all its strings in one record"
    if published.key != parse_record(record).key:
        return "the record holds another key: it was copied in part, or is of older keys; publish the line that `mailserver dkim show` prints"
    if published.testing:
        return "the record says t=y, a test: receivers may treat the mail as unsigned; remove the flag"
    return ""
