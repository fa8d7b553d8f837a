"""Log lines cannot be broken by what a client sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel, formatEventAsClassicLogText
from twisted.python.failure import Failure

from mailserver.net.log.events import classic_text, escape, event_line
from tests.fakes import info


@given(st.text())
def test_a_value_is_one_word_on_one_line(text: str) -> None:
    word = escape(text)
    assert word.isprintable()
    assert word.startswith('"') or not set(word) & set(' "=')
    if word.startswith('"'):
        assert word.endswith('"')


def test_controls_and_quotes_are_shown_not_sent() -> None:
    assert escape("a\r\nlogin user=root") == '"a\\r\\nlogin user=root"'
    assert escape('say "hi"') == '"say \\"hi\\""'
    assert escape("plain") == "plain"
    assert escape("") == '""'
    assert escape("a" * 500) == "a" * 500
    assert escape("a" * 100_000) == '"' + "a" * 500 + '"', "no stranger's word fills the log"


def test_a_line_names_the_connection() -> None:
    line = event_line("login", info("imaps"), "anna@example.test", {"mechanism": "PLAIN"})
    assert line.startswith("login session=test1 protocol=imaps peer=192.0.2.7 tls=TLSv1.3")
    assert line.endswith("user=anna@example.test mechanism=PLAIN")


@pytest.mark.parametrize("nobody", [None, ""])
def test_nobody_is_no_user_of_that_name(nobody: str | None) -> None:
    line = event_line("too-many-errors", info("pop3s"), None, {"user": nobody, "method": ""})
    assert "user=" not in line
    assert line.endswith(' method=""')


_events = st.fixed_dictionaries(
    {"log_format": st.sampled_from(["{line}", "{line} {more}", "plain", None])},
    optional={
        "line": st.text() | st.none() | st.just(7),
        "log_system": st.text() | st.none(),
        "log_namespace": st.text(),
        "log_level": st.sampled_from(list(LogLevel.iterconstants())),
        "log_time": st.none() | st.floats(1.0, 2e9),
        "log_failure": st.just(Failure(ValueError("x"))),
    },
)


@given(_events)
def test_the_short_way_writes_what_twisted_writes(event: dict[str, object]) -> None:
    assert classic_text(event) == formatEventAsClassicLogText(event)
