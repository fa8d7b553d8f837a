"""The mail transfer agents of the tests run as they should."""

from __future__ import annotations

import smtplib

import pytest

from tests.interop.exim import Exim
from tests.interop.postfix import Postfix, postmap_query


@pytest.mark.parametrize("make", [Postfix, Exim])
def test_it_receives_by_smtp(make: type[Postfix | Exim]) -> None:
    with make() as agent, smtplib.SMTP("127.0.0.1", agent.port, timeout=30) as client:
        assert client.ehlo()[0] == 250
        assert client.mail("anna@example.test")[0] == 250
        assert client.rcpt("somebody@example.net")[0] in (454, 550, 554), agent.log  # it relays nothing


def test_postfix_is_asked_by_its_own_commands() -> None:
    with Postfix("relay_domains = example.org\n") as postfix:
        assert postfix.tool("postconf", "-h", "relay_domains", check=True).stdout == "example.org\n"
        assert postmap_query(postfix, "inline:{anna=here}", "anna") == "here"
        assert postmap_query(postfix, "inline:{anna=here}", "ben") is None
        postfix.set_config("relay_domains = example.net\n")
        postfix.reload()
        assert postfix.tool("postconf", "-h", "relay_domains", check=True).stdout == "example.net\n"
