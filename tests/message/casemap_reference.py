"""RFC 5051 2, step by step: what `mailserver.message.collation` has to agree with. Octets as RFC 4790 9.3 compares them."""

from __future__ import annotations

import unicodedata


def prepare(text: str) -> bytes:
    """Return the titlecased canonicalised UTF-8 of a text."""
    prepared = b""
    for character in text:
        # Step 2 a. UnicodeData.txt has one character or none; where `title` has several, they are of SpecialCasing.txt.
        title = character.title()
        todo = [title if len(title) == 1 else character]
        while todo:
            # Step 2 b, "recursively applied".
            each = todo.pop(0)
            decomposition = [word for word in unicodedata.decomposition(each).split() if not word.startswith("<")]
            if decomposition:
                todo = [chr(int(word, 16)) for word in decomposition] + todo
            else:
                prepared += each.encode("utf-8", "surrogatepass")
    return prepared


def is_part(part: str, text: str) -> bool:
    """The substring operation."""
    return prepare(part) in prepare(text)
