"""Small messages with one oddity each; their names say which."""

from __future__ import annotations

from tests.corpus import crlf

ADDRESSES = (
    b"From: a b c", b"From: <>", b"From: joe@", b"From: @example.test", b"From: joe@example.test (Joe (the) Doe)",
    b'From: "a \\"q\\" b" <x@example.test>', b"From: <@a.test,@b.test:joe@c.test>", b"To: grp: a@b.test, c@d.test;, e@f.test",
    b"To: undisclosed-recipients:;", b"To: a@b.test,,c@d.test,", b'To: "unterminated <a@b.test>', b"To: a@b.test c@d.test",
    b"To: John Doe a@b.test", b"To: \xc3\xa4 <a@b.test>", b"Subject: \xe4\xf6", b"Subject: ", b"Subject: a\n b\n\tc",
    b"To: (comment) a (x) @ (y) b.test", b'To: "quoted local"@b.test', b"To: a@[192.0.2.1]", b"To: a@b@c.test", b"To: a.b.c <a.b@c.test>",
    b"To: <a@b.test", b"To: a@b.test>", b"To: =?utf-8?q?x=2C_y?= <a@b.test>", b"Sender: \nFrom: a@b.test", b"Reply-To: ,\nFrom: a@b.test",
    b"Subject: one\nSubject: two", b"From: a@b.test\nFrom: c@d.test", b'Date: x\\"y', b"From: ", b"Cc: ;", b"To: grp: a@b.test",
    b"To: <a@b.test> <c@d.test>", b"To: foo <a@b.test> bar", b"Message-ID: <a@b>\n <c@d>", b"To: a\\b <c@d.test>", b"From: J. R. Doe <a@b.test>",
    b"From: Doe, J. <a@b.test>", b"Subject : x", b"no colon here\nSubject: y", b": empty\nSubject: y", b"From MAILER Tue\nSubject: z",
)  # fmt: skip

CONTENT = (
    b'Content-Type: text/plain; charset="a\\"b"', b"Content-Type: text/plain; charset", b"Content-Type: text/plain; =x", b"Content-Type: text/",
    b"Content-Type: /plain", b"Content-Type: text/plain; a=b c; d=e", b"Content-Type: text/html; charset=\xe4", b"Content-Type: TEXT/PLAIN; CHARSET=US-ASCII",
    b"Content-Type: text/plain (c); (d) charset=utf-8 (e)", b"Content-Type: ", b'Content-Type: application/pdf; name="a b.pdf";',
    b'Content-Disposition: attachment; filename="x\xc3\xa4.txt"', b"Content-Disposition: ", b"Content-Language: de, en", b"Content-Language: de",
    b"Content-Location: http://example.test/", b"Content-MD5: Q2hlY2s=", b"Content-ID: <a@b>\nContent-Description: d", b"Content-Type: message/rfc822",
    b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64", b"Content-Type: multipart/mixed", b'Content-Type: multipart/mixed; boundary=""',
    b"Content-Type: multipart/mixed; boundary=a", b"Content-Type: text/plain\nContent-Type: text/html", b"Content-Transfer-Encoding: 8bit (x)",
    b"Content-Transfer-Encoding: a b", b"Content-Disposition: inline; filename*=utf-8''a%20b", b"Content-Disposition: inline; filename*0=a; filename*1=b",
    b"Content-Disposition: inline; filename*=utf-8''%c3%a4",
)  # fmt: skip

INNER = b"--a\nContent-Type: multipart/alternative; boundary="
MULTIPARTS = {
    b"preamble and epilogue": b"pre\n--a\n\nx\n--a--\npost\n",
    b"delimiter behind delimiter": b"--a\n\nx\n--a\n--a--\n",
    b"delimiter in a header": b"--a\nContent-Type: text/html\n--a\n\ny\n--a--\n",
    b"no end": b"--a\n\nx",
    b"only a delimiter": b"--a",
    b"only the last delimiter": b"--a--",
    b"padded delimiters": b"--a  \n\nx\n--a-- \n",
    b"longer delimiters": b"--ab\n\nx\n--ab--\n",
    b"inner boundary is longer": INNER + b"ab\n\n--ab\n\nx\n--ab\n\ny\n--ab--\n--a\n\nz\n--a--\n",
    b"inner boundary is the same": INNER + b"a\n\n--a\n\nx\n--a\n\ny\n--a--\n--a\n\nz\n--a--\n",
    b"inner multipart does not end": INNER + b"b\n\n--b\n\nx\n--a\n\nz\n--a--\n",
    b"a message": b"--a\nContent-Type: message/rfc822\n\nSubject: in\n" + INNER[4:] + b"b\n\n--b\n\nx\n--b--\n\n--a\n\nz\n--a--\n",
    b"an empty message": b"--a\nContent-Type: message/rfc822\n\n--a--\n",
    b"a message without empty line": b"--a\nContent-Type: message/rfc822\n--a--\n",
    b"parts behind the end": b"--a--\n--a\n\nx\n--a--\n",
    b"empty lines": b"\n--a\n\n\n--a--\n",
    b"delimiters within lines": b"x--a\n\nx\n\n --a\n\n--a\n\nx\n--a--",
}  # fmt: skip

WHOLE = (b"\n", b"\n\n", b"Subject: no body\n", b"Subject: x", b"body only no header\n\nx\n")


def odd_messages() -> dict[str, bytes]:
    """By name."""
    found: dict[bytes, bytes] = {}
    for header in ADDRESSES + CONTENT:
        found[header] = b"MIME-Version: 1.0\n" + header + b"\n\nbody\n"
    for name, body in MULTIPARTS.items():
        found[name] = b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=a\n\n" + body
    for source in WHOLE:
        found[b"whole: " + source] = source
    return {
        name.decode("latin-1").replace("\n", "/").replace("\t", "/"): crlf(source) for name, source in found.items()
    }
