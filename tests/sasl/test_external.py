"""EXTERNAL as RFC 4422 appendix A describes it."""

import pytest

from mailserver.sasl.external import MAX_RESPONSE, External
from mailserver.sasl.mechanism import Certified, Challenge, Done, Failed


def test_the_certificate_says_who_it_is() -> None:
    assert External("anna@example.test").step(b"") == Done(Certified("anna@example.test"))
    mechanism = External("anna@example.test")
    assert mechanism.step(None) == Challenge(b"")
    assert mechanism.step("zoë".encode()) == Done(Certified("anna@example.test", "zoë"))
    assert isinstance(mechanism.step(b""), Failed)


@pytest.mark.parametrize("response", [b"a\0b", b"\xff", b"x" * (MAX_RESPONSE + 1)])
def test_bad_responses(response: bytes) -> None:
    mechanism = External("anna@example.test")
    assert isinstance(mechanism.step(response), Failed)
    assert isinstance(mechanism.step(b""), Failed)
