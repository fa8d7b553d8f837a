"""Sizes that the names of message files claim: `1276528487.M364837P9451.host,S=1355,W=1394`.

`S=` is the size of the file, `W=` that of the message as sent. The program that wrote the file has counted both, so that
a reader need not open it: Dovecot believes them, and so do we, with these bounds:

*   Both stand at the end of the base, as Dovecot and this server write them.
*   S < W <= 2 * S: some lines end in a bare LF, and each of them adds one octet. Equal sizes say that nothing is to be
    converted; only a name of this server is believed in that, as a copied number would put bare LFs into a message as
    sent.
*   The octets that are sent are always those of the file, with its own length. A file that turns out to have another
    size is measured then, and the index gets the true one.
"""

from __future__ import annotations

import operator
import re
from array import array
from collections.abc import Sequence
from typing import Final

from mailserver.types import UNKNOWN_SIZE

OWN_NAME: Final = re.compile(rb"[0-9]+\.M[0-9]{6}P[0-9]+Q[0-9]+R[0-9a-f]{8}\.")
"""Beginning of the names that this server makes."""
_SIZES: Final = re.compile(rb",S=([0-9]{1,9}),W=([0-9]{1,9})\Z")
_BASE: Final = re.compile(r",S=([0-9]{1,9}),W=([0-9]{1,9})(?::2,[^/]*)?\Z")
_ALL_SIZES: Final = re.compile(rb",S=([0-9]{1,9}),W=([0-9]{1,9})$", re.MULTILINE)


def claimed_size(base: bytes) -> int:
    """Return the octets of the message as sent that the base of its name claims; UNKNOWN_SIZE if it is not believed."""
    found = _SIZES.search(base, max(0, len(base) - 26))
    if found is None:
        return UNKNOWN_SIZE
    on_disk, sent = int(found[1]), int(found[2])
    if on_disk < sent <= 2 * on_disk or (on_disk == sent and OWN_NAME.match(base)):
        return sent
    return UNKNOWN_SIZE


def claims_conversion(path: str) -> bool:
    """Tell whether the name of a message file claims that some lines of it end in a bare LF."""
    found = _BASE.search(path)
    return found is not None and int(found[1]) < int(found[2])


def claimed_sizes(bases: Sequence[bytes]) -> array[int]:
    """Do `claimed_size` for many; some thousand at a time, as other threads wait during a call into C."""
    return _usual_sizes(bases) or array("I", map(claimed_size, bases))


def _usual_sizes(bases: Sequence[bytes]) -> array[int] | None:
    """Return the sizes if all names claim some, with bare LFs; a fifth of the time."""
    text = b"\n".join(bases)
    found = _ALL_SIZES.findall(text)
    if len(found) != len(bases) or text.count(b"\n") != len(found) - 1:
        return None
    on_disk, sent = ([int(size) for size in sizes] for sizes in zip(*found, strict=True))
    converted = list(map(operator.sub, sent, on_disk))
    if min(converted) < 1 or not all(map(operator.le, converted, on_disk)):
        return None
    return array("I", sent)
