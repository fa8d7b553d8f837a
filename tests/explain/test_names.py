"""Typed names that may be passwords, and ids of refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.explain.names import MAX_SHOWN, is_address, shown_name
from mailserver.explain.refs import ALPHABET, new_ref, read_ref


@pytest.mark.parametrize(
    "name",
    ["anna@example.test", "Anna.B+x@Mail.Example.Test", "o'hara@example.test", "jürgen@müller.test", "a@b.xn--p1ai"],
)
def test_addresses_are_shown(name: str) -> None:
    assert shown_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "hunter2",
        "Tr0ub4dor&3",
        "correct horse battery staple",
        "p@ssw0rd",
        "p@ssw0rd.123",
        "me@home",
        "a@b@example.test",
        "pass word@example.test",
        "secret:x@example.test",
        '"quoted"@example.test',
        "@example.test",
        "x@[192.0.2.1]",
        "a@example.test\n",
        "a@example.test\0",
        "€" * 12,
    ],
)
def test_other_names_are_shown_by_their_length(name: str) -> None:
    assert shown_name(name) == f"({len(name)} characters)"


def test_a_user_is_shown_and_long_names_are_bounded() -> None:
    assert shown_name("anna", is_user=True) == "anna"
    assert shown_name("") == ""
    assert shown_name("x" * 10_000) == "(10000 characters)"
    assert shown_name("x" * 10_000 + "@example.test") == "(10013 characters)"
    assert len(shown_name("x" * 10_000, is_user=True)) == MAX_SHOWN


@given(st.text())
def test_whatever_is_shown_is_an_address(name: str) -> None:
    if name and shown_name(name) == name:
        assert is_address(name)
        assert name.isprintable()
        assert not set(name) & set(' \t":;<>()[]\\,')


@given(st.text(ALPHABET, min_size=8, max_size=8).map(lambda letters: f"{letters[:4]}-{letters[4:]}"))
def test_an_id_is_read_as_people_write_it(ref: str) -> None:
    assert read_ref(ref) == ref
    plain = ref.replace("-", "")
    for text in (
        ref.lower(),
        plain,
        f"{plain[:2]} {plain[2:]}",
        f"(ref {ref})",
        f" ref {ref.lower()} ",
        plain.replace("0", "o"),
    ):
        assert read_ref(text) == ref
    assert read_ref(plain.replace("1", "l")) == read_ref(plain.replace("1", "I")) == ref


@pytest.mark.parametrize(
    "text", ["", "7KQF", "7KQF-2M9XX", "7KQF-2M9U", "7KQF-2M9é", "ref", "7KQF\0-2M9X", "x" * 10_000]
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert read_ref(text) is None


def test_ids_use_all_letters_and_differ() -> None:
    refs = {new_ref() for _ in range(2000)}
    assert len(refs) == 2000
    assert set("".join(refs)) == {*ALPHABET, "-"}
