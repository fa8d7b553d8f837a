"""RET, ENVID, NOTIFY and ORCPT, also hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import BadSyntax
from mailserver.queue import dsn_parameters as dsn
from mailserver.queue.dsn_rules import is_backscatter


def test_the_parameters_of_the_rfcs_example() -> None:
    assert dsn.parse_mail([("RET", "HDRS"), ("ENVID", "QQ314159"), ("SIZE", "5")]) == dsn.MailParameters(
        "HDRS", "QQ314159"
    )
    assert dsn.parse_rcpt([("notify", "success,FAILURE"), ("ORCPT", "rfc822;Dana@Ivory.EDU")]) == dsn.RcptParameters(
        "SUCCESS,FAILURE", "rfc822;Dana@Ivory.EDU"
    )
    assert dsn.parse_rcpt([]) == dsn.RcptParameters()


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        pytest.param("RET", None, id="ret-empty"),
        pytest.param("RET", "FULL,HDRS", id="ret-both"),
        pytest.param("ENVID", None, id="envid-empty"),
        pytest.param("ENVID", "a" * 101, id="envid-long"),
        pytest.param("ENVID", "a+0D+0Ab", id="envid-crlf"),
        pytest.param("ENVID", "a+00", id="envid-nul"),
        pytest.param("ENVID", "a+4", id="envid-cut"),
        pytest.param("ENVID", "a+4g", id="envid-no-hex"),
        pytest.param("ENVID", "a+e4", id="envid-lower-hex"),
        pytest.param("ENVID", "a=b", id="envid-equals"),
        pytest.param("ENVID", "a b", id="envid-space"),
        pytest.param("ENVID", "\u00e4", id="envid-8bit"),
    ],
)
def test_bad_parameters_of_mail(keyword: str, value: str | None) -> None:
    with pytest.raises(BadSyntax):
        dsn.parse_mail([(keyword, value)])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        pytest.param("NOTIFY", None, id="notify-empty"),
        pytest.param("NOTIFY", "NEVER,FAILURE", id="notify-never-and-more"),
        pytest.param("NOTIFY", "FAILURE,FAILURE", id="notify-twice"),
        pytest.param("NOTIFY", "FAILURE,", id="notify-comma"),
        pytest.param("NOTIFY", "SOMETIMES", id="notify-unknown"),
        pytest.param("ORCPT", None, id="orcpt-empty"),
        pytest.param("ORCPT", "bob@example.com", id="orcpt-no-type"),
        pytest.param("ORCPT", "rfc822;", id="orcpt-no-address"),
        pytest.param("ORCPT", ";bob@example.com", id="orcpt-empty-type"),
        pytest.param("ORCPT", "rfc 822;bob", id="orcpt-type-with-space"),
        pytest.param("ORCPT", "rfc822;bob+0A", id="orcpt-lf"),
        pytest.param("ORCPT", "rfc822;bob+7F", id="orcpt-del"),
        pytest.param("ORCPT", "rfc822;" + "a" * 494, id="orcpt-long"),
        pytest.param("ORCPT", "rfc822;b\u00f6b", id="orcpt-8bit"),
        pytest.param("ORCPT", "utf-8;b\u00f6b", id="orcpt-utf8-without-smtputf8"),
        pytest.param("ORCPT", r"utf-8;\x{}", id="orcpt-utf8-empty-escape"),
        pytest.param("ORCPT", r"utf-8;\x{110000000}", id="orcpt-utf8-long-escape"),
        pytest.param("ORCPT", "utf-8;a+0D", id="orcpt-utf8-cr"),
    ],
)
def test_bad_parameters_of_rcpt(keyword: str, value: str | None) -> None:
    with pytest.raises(BadSyntax):
        dsn.parse_rcpt([(keyword, value)])


def test_a_parameter_twice() -> None:
    with pytest.raises(BadSyntax, match="NOTIFY stands twice"):
        dsn.parse_rcpt([("NOTIFY", "NEVER"), ("notify", "NEVER")])
    with pytest.raises(BadSyntax, match="ENVID stands twice"):
        dsn.parse_mail([("ENVID", "a"), ("ENVID", "a")])


def test_xtext_is_decoded_once() -> None:
    assert dsn.original_recipient("rfc822;a+2B2Bb@example.com") == ("rfc822", "a+2Bb@example.com")
    assert dsn.parse_orcpt("rfc822;a+2B0Db") == "rfc822;a+2B0Db"


def test_orcpt_beyond_ascii() -> None:
    for value, utf8 in ((r"utf-8;b\x{F6}b@example.com", False), ("utf-8;b\u00f6b@example.com", True)):
        assert dsn.original_recipient(dsn.parse_orcpt(value, utf8=utf8)) == ("utf-8", "b\u00f6b@example.com")
    assert dsn.original_recipient(r"utf-8;\x{D800}\x{FFFFFF}")[1] == "??"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_xtext_round_trip(text: str) -> None:
    assert dsn.decode_xtext(dsn.encode_xtext(text)) == text


@given(st.text(max_size=600))
def test_any_value_is_refused_or_harmless(value: str) -> None:
    for parse in (dsn.parse_ret, dsn.parse_envid, dsn.parse_notify, dsn.parse_orcpt):
        try:
            kept = parse(value)
        except BadSyntax:
            continue
        assert kept.isascii()
        assert kept.isprintable()


def test_backscatter_is_a_forward_of_nobody_we_know() -> None:
    assert is_backscatter(forwarded=True, authenticated=False)
    assert not is_backscatter(forwarded=True, authenticated=True)
    assert not is_backscatter(forwarded=False, authenticated=False)
