"""Modified UTF-7: RFC 3501's examples, and that each text has one form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver import modified_utf7


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # RFC 3501 5.1.3's own example, and Dovecot's directories for the others.
        ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("Entwürfe", "Entw&APw-rfe"), ("A&B", "A&-B"), ("&", "&-"), ("", ""), ("a~b", "a~b"), ("😀", "&2D3eAA-"),
        ("\t", "&AAk-"),
    ],
)  # fmt: skip
def test_modified_utf_7(name, text):
    assert modified_utf7.encode(name) == text
    assert modified_utf7.decode(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "A&B",
        "&AGE-",
        "&",
        "é",
        "&APw",
        "&AP-",
        "&APx-",
        "&2D0-",
        "&3gA-",
        "&!-",
        "&AP w-",
        "&APw-&APw-",
        "&AOQ=-",
        "&A/w-",
    ],
)
def test_text_that_is_not_canonical_modified_utf_7_is_refused(text):
    """&AGE- is "a", &2D0- a lone surrogate; adjacent shifts would be a second way to write one name."""
    with pytest.raises(ValueError, match=r"UTF-7|surrogate"):
        modified_utf7.decode(text)


@settings(max_examples=300)
@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_comes_back_in_printable_ascii(text):
    encoded = modified_utf7.encode(text)
    assert all(" " <= c <= "~" for c in encoded)
    assert modified_utf7.decode(encoded) == text


@settings(max_examples=300)
@given(st.text("&-AOQwUB,/+= aé", max_size=12))
def test_what_decodes_encodes_to_the_same(text):
    try:
        name = modified_utf7.decode(text)
    except ValueError:
        return
    assert modified_utf7.encode(name) == text
