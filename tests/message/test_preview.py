"""Previews (RFC 8970): one line of the message's own text."""

from __future__ import annotations

import email
import email.policy
import html.parser
import re
import unicodedata
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import corpus
from mailserver.message import preview as previews
from mailserver.message.preview import LARGEST, LONGEST, preview
from tests.corpus import crlf, hostile, python_messages


def of(header: str, body: str) -> str:
    return preview(crlf(f"{header}\n\n{body}".encode()))


def of_html(body: str) -> str:
    return of("Content-Type: text/html; charset=utf-8", body)


MIXED = "Content-Type: multipart/mixed; boundary=m"
ATTACHED = "--m\nContent-Type: text/plain\nContent-Disposition: attachment; filename=a.txt\n\nin the file\n"


@pytest.mark.parametrize(
    ("header", "body", "text"),
    [
        ("Subject: x", "one\n\n  two\tthree\n", "one two three"),
        ("Subject: x", "", ""),
        ("Content-Type: image/png", "abc", ""),
        ("Content-Type: text/calendar", "BEGIN:VCALENDAR", ""),
        # Quotes, and what introduces them, are left out, but where there is nothing else.
        ("Subject: x", "On Monday Bert wrote:\n> a\n> b\n\nyes\n", "yes"),
        ("Subject: x", "yes\n\nOn Mon, 1 Jan 2024,\n> a\n", "yes On Mon, 1 Jan 2024,"),
        (
            "Subject: x",
            "Am 1.1.2024 schrieb Bert:\n> a\n>> b\n",
            "Am 1.1.2024 schrieb Bert: a b",
        ),
        ("Subject: x", "hello\n-- \nAnna\n", "hello"),
        ("Subject: x", "-- \nAnna\n", "-- Anna"),
        # Parts: the plain one of alternatives, no attachments, messages inside last.
        (
            "Content-Type: multipart/alternative; boundary=b",
            "--b\nContent-Type: text/html\n\n<p>h</p>\n--b\nContent-Type: text/plain\n\np\n--b--\n",
            "p",
        ),
        (
            "Content-Type: multipart/alternative; boundary=b",
            "--b\nContent-Type: text/plain\n\n \n--b\nContent-Type: text/html\n\n<p>h</p>\n--b--\n",
            "h",
        ),
        (MIXED, ATTACHED + "--m\n\nthe text\n--m--\n", "the text"),
        (MIXED, ATTACHED + "--m--\n", ""),
        (MIXED, "--m\nContent-Type: message/rfc822\n\nSubject: y\n\ninner\n--m\n\nouter\n--m--\n", "outer"),
        (MIXED, "--m\nContent-Type: message/rfc822\n\nSubject: y\n\ninner\n--m--\n", "inner"),
        ("Content-Type: multipart/encrypted; boundary=m", "--m\n\nVersion: 1\n--m--\n", ""),
        # Encodings and charsets.
        ("Content-Transfer-Encoding: base64", "SGVsbG8=", "Hello"),
        (
            "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable",
            "J=FCrgen=\n x",
            "Jürgen x",
        ),
        ("Content-Type: text/plain; charset=utf-8", "a\u200b\u034f\u00adb\u00a0\ufeffc", "ab c"),
    ],
)
def test_texts(header: str, body: str, text: str) -> None:
    assert of(header, body) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>one</p><p>two</p>", "one two"),
        ("<b>o</b>ne&nbsp;&amp;<br>two <A href='x'>th</A>ree", "one & two three"),
        ("<html><head><title>no</title><style>p { x }</style></head><body>yes</body>", "yes"),
        ("<script>if (a < b) { }</script>yes<!-- <p>no</p> -->", "yes"),
        ("<p>yes</p><blockquote>no<blockquote>no</blockquote>no</blockquote><p>more</p>", "yes more"),
        ("<blockquote><p>only</p></blockquote>", "only"),
        ("a &lt;tag&gt; and 1 < 2", "a <tag> and 1 < 2"),
        ("<style>never closed", ""),
        ("&#99999999999;&#x41;&unknown;", "\ufffdA&unknown;"),
        ("<article>a</article><abbr>b</abbr>c", "a bc"),
    ],
)
def test_html(body: str, text: str) -> None:
    assert of_html(body) == text


def test_it_is_short_and_of_the_beginning() -> None:
    assert of("Subject: x", "ä" * 1000) == "ä" * LONGEST
    assert of("Subject: x", "a " * 1000) == ("a " * 100).rstrip()
    assert of_html("<p>" + "<br>\n" * 5000 + "late") == "late"
    large = crlf(b"Content-Type: text/plain; charset=utf-8\n\n" + ("größer " * 40_000).encode())
    assert preview(large) == preview(large[:LARGEST]) == ("größer " * 50)[:LONGEST].rstrip()


def test_a_cut_in_the_middle_of_a_character_changes_no_charset() -> None:
    head = b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xbc "
    for odd in range(4):
        source = head + b"x" * odd + b" \r\n" + "ü".encode() * LARGEST
        assert preview(source).startswith("ü " + "x" * odd), odd
        assert "Ã" not in preview(source)


def test_each_line_is_examined_once_however_many_quotes_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that nearly introduces a quote takes a hundred microseconds, and a message has 20,000 lines of quotes."""

    class Counting:
        examined = 0

        def fullmatch(self, line: str) -> re.Match[str] | None:
            self.examined += 1
            return real.fullmatch(line)

    real, counting = previews._ATTRIBUTION, Counting()
    monkeypatch.setattr(previews, "_ATTRIBUTION", counting)
    line = "on " + "wrote" * 60
    assert of("Subject: x", f"{line}\n" + ">\n" * 20_000) == line[:LONGEST]
    assert counting.examined == 1
    assert (
        of("Subject: x", "yes\nOn Monday B wrote:\n\n> no\n>\n> no\nAt noon\n> no\nOn Friday C wrote:\n> no\n")
        == "yes At noon"
    )


@given(
    st.binary(max_size=400),
    st.sampled_from(["plain", "html", "enriched"]),
    st.sampled_from(["7bit", "base64", "quoted-printable"]),
)
def test_any_octets_give_one_line(data: bytes, kind: str, encoding: str) -> None:
    text = preview(f"Content-Type: text/{kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + data)
    assert len(text) <= LONGEST
    assert text == text.strip()
    assert not any(unicodedata.category(character) == "Cc" for character in text)
    text.encode("utf-8")


@pytest.mark.parametrize("name", [name for name, _ in hostile()])
def test_hostile_messages(name: str) -> None:
    source = dict(hostile())[name]
    assert len(preview(source)) <= LONGEST


# --- a naive implementation: Python's packages, without limits


class Visible(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in ("style", "script", "title")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script", "title")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.texts.append(data)


def naive(source: bytes) -> str | None:
    """The letters of the text that Python finds; None where it finds none."""
    message = email.message_from_bytes(source, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    body = message.get_body(("plain", "html"))
    if body is None:
        return None
    try:
        text = body.get_content()
    except (LookupError, KeyError, ValueError):
        return None
    if body.get_content_subtype() == "html":
        parser = Visible()
        parser.feed(text)
        text = " ".join(parser.texts)
    else:
        lines = text.splitlines()
        end = lines.index("-- ") if "-- " in lines else len(lines)
        text = " ".join(line for line in lines[:end] if not line.startswith(">"))
    return text


def letters(text: str) -> str:
    return re.sub(r"\W+", "", text)


def agrees(source: bytes) -> bool | None:
    text = naive(source)
    if text is None or not letters(text):
        return None
    found = letters(preview(source))
    return bool(found) and letters(text).find(found[:100]) in range(200)


def test_mail_like_peoples_is_as_python_reads_it() -> None:
    answers = [agrees(corpus.crlf(corpus.message(seed))) for seed in range(150)]
    assert answers.count(False) == 0, [seed for seed, answer in enumerate(answers) if answer is False]
    assert answers.count(True) > 130


def test_the_messages_of_pythons_own_tests() -> None:
    answers = {name: agrees(source) for name, source in python_messages().items()}
    # In these no empty line ends a header, so that there is no text.
    assert {name for name, answer in answers.items() if answer is False} <= {"msg_35.txt", "msg_47.txt"}
