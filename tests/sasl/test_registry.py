"""What holds for every mechanism of the table."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.sasl.mechanism import Challenge, Done, Failed
from mailserver.sasl.registry import MECHANISMS


def test_names_are_sasl_names() -> None:
    # RFC 4422 3.1: 1 to 20 upper-case letters, digits, hyphens, underscores.
    assert set(MECHANISMS) == {"PLAIN", "LOGIN"}
    assert all(re.fullmatch(r"[A-Z0-9_-]{1,20}", name) for name in MECHANISMS)


@given(
    st.sampled_from(sorted(MECHANISMS)),
    st.lists(st.none() | st.binary(max_size=30) | st.text("a\0é", max_size=8).map(str.encode), max_size=5),
)
@settings(max_examples=200)
def test_any_bytes_are_answered_and_what_is_done_is_whole(name: str, messages: list[bytes | None]) -> None:
    mechanism = MECHANISMS[name]()
    over = False
    for message in messages:
        outcome = mechanism.step(message)
        assert isinstance(outcome, Challenge | Done | Failed)
        if over:
            assert isinstance(outcome, Failed)
        if isinstance(outcome, Done):
            credentials = outcome.credentials
            assert credentials.name
            assert credentials.password.reveal()
            assert "\0" not in credentials.name + credentials.authorization
            assert b"\0" not in credentials.password.reveal()
        over = over or not isinstance(outcome, Challenge)


def test_exchanges_do_not_share_state() -> None:
    for make in MECHANISMS.values():
        first, second = make(), make()
        assert isinstance(first.step(b""), Failed)
        assert isinstance(second.step(None), Challenge)
