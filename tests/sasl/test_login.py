"""LOGIN as draft-murchison-sasl-login-00 describes it."""

import pytest

from mailserver.sasl.login import MAX_RESPONSE, Login
from mailserver.sasl.mechanism import Challenge, Credentials, Done, Failed
from mailserver.types import Secret


def test_asks_for_name_then_password() -> None:
    mechanism = Login()
    assert mechanism.step(None) == Challenge(b"Username:")
    assert mechanism.step("zoë".encode()) == Challenge(b"Password:")
    assert mechanism.step(b"se cret") == Done(Credentials("zoë", Secret(b"se cret")))
    assert isinstance(mechanism.step(b"again"), Failed)


def test_initial_response_is_the_name() -> None:
    mechanism = Login()
    assert mechanism.step(b"tim") == Challenge(b"Password:")
    assert mechanism.step(b"pw") == Done(Credentials("tim", Secret(b"pw")))


@pytest.mark.parametrize("bad", [b"", b"a\0b", b"\0", b"\xff", b"x" * (MAX_RESPONSE + 1)])
def test_bad_name_or_password_ends_it(bad: bytes) -> None:
    first = Login()
    assert isinstance(first.step(bad), Failed)
    assert isinstance(first.step(b"tim"), Failed)
    second = Login()
    second.step(b"tim")
    assert isinstance(second.step(bad), Failed)
    assert isinstance(second.step(b"pw"), Failed)
