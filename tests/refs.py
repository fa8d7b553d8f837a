"""Ids of refused logins in answers, which differ each time: comparisons of whole answers leave them out."""

import re

REF = re.compile(rb" \(ref ([0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4})\)")


def without_refs(data: bytes) -> bytes:
    """The octets without ids of refused logins."""
    return REF.sub(b"", data)


def refs_in(data: bytes) -> list[str]:
    """The ids in these octets."""
    return [each.decode("ascii") for each in REF.findall(data)]
