"""Messages like people's, made from a seed: the same octets in every run, with LF line ends as an MDA writes them.

| kind | of 100 | what is in it |
| --- | ---: | --- |
| text | 38 | text/plain as 7bit, 8bit or quoted-printable, with quotes of the message before |
| newsletter | 27 | multipart/alternative: text, and HTML as quoted-printable |
| attachment | 20 | multipart/mixed: multipart/alternative, and one to three files as base64 |
| inline | 6 | multipart/related: HTML and pictures as base64 |
| forwarded | 5 | multipart/mixed: text and a message/rfc822 |
| invitation | 2 | multipart/alternative with text/calendar |
| report | 2 | multipart/report: a delivery status notification (RFC 3464) |

Half of the messages have at most some 4 KiB, the mean is near 13 KiB. Each has the header of mail that went through
several hosts: 1.5 to 4 KiB with traces, signatures and list fields. A third of the names and subjects are encoded words
(RFC 2047), one in twenty has ten to two hundred recipients, two thirds are replies in a thread.
"""

from __future__ import annotations

import base64
import quopri
import random
from email.header import Header
from email.utils import formatdate
from functools import cache

_VOCABULARY = """
meeting invoice report garden river window summer winter letter number market answer friend system paper
travel kitchen doctor music school street evening morning signal basket orange purple engine harbour bridge
about after again because before between could every first found great house little might never other people
place right should small still their there these thing think three under water where which while world would
write year
"""
WORDS = _VOCABULARY.split()
UMLAUTS = [
    "für",
    "Grüße",
    "Änderung",
    "Prüfung",
    "größer",
    "schön",
    "déjà",
    "français",
    "Señor",
    "naïve",
    "København",
    "Łódź",
    "Zürich",
]
"""Words for text that ASCII does not hold."""
NAMES = [
    "Anna",
    "Bert",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Greta",
    "Henrik",
    "Ida",
    "Jakob",
    "Klara",
    "Linus",
    "Marta",
    "Nils",
    "Olga",
    "Peter",
    "Rosa",
    "Sven",
    "Tilda",
    "Ulf",
    "Vera",
]
ENCODED_NAMES = ["Jürgen Müller", "Åsa Lindström", "François Lefèvre", "Zoë Núñez", "Łukasz Żak"]
DOMAINS = ["example.net", "example.com", "example.org", "lists.example.org", "mail.example.edu"]
FIRST_DATE = 1_700_000_000
"""The Date of the first message, in seconds since 1970; each further one is ten minutes younger."""
RARE = "xylophone"
"""In the subject and the text of one message in a thousand."""
_STYLE = 'style=3D"font-family:Arial,Helvetica,sans-serif;font-size:14px;line-height:1.5;color:#333333"'
_KINDS = ("text", "newsletter", "attachment", "inline", "forwarded", "invitation", "report")
_SHARES = (38, 27, 20, 6, 5, 2, 2)


def message(seed: int) -> bytes:
    """Return the message of a seed, with LF line ends."""
    rng = random.Random(seed)
    rare = seed % 1000 == 17
    kind = "text" if rare else rng.choices(_KINDS, _SHARES)[0]
    fields = _header(rng, seed, rare=rare, to_list=kind == "newsletter")
    return "\n".join([*fields, *_BODIES[kind](rng, rare)]).encode() + b"\n"


def message_of(size: int) -> bytes:
    """Return a message of exactly that many octets, with LF line ends: text, and a file as base64 that fills it."""
    rng = random.Random(size)
    head = _header(rng, size, rare=False, to_list=False)
    start = (
        "\n".join([*head, *_mixed_head("fill"), *_text_part(rng, 8), "--fill", *_file_head("report.pdf"), ""]) + "\n"
    )
    end = "\n--fill--\n"
    room = size - len(start.encode()) - len(end)
    assert room > 0, "the header alone is longer"
    lines = base64.encodebytes(rng.randbytes(room)).decode()[: room - 1]
    return f"{start}{lines}\n{end}".encode()


def crlf(message: bytes) -> bytes:
    """Return a message as it goes over the network."""
    return message.replace(b"\n", b"\r\n")


def _date(seed: int) -> str:
    return formatdate(FIRST_DATE + seed * 600)


def _address(rng: random.Random) -> str:
    domain = rng.choice(DOMAINS)
    if rng.random() < 0.3:
        name = rng.choice(ENCODED_NAMES)
        return f"{Header(name, 'utf-8').encode()} <{rng.choice(NAMES).lower()}{rng.randrange(90)}@{domain}>"
    first, last = rng.choice(NAMES), rng.choice(NAMES)
    form = rng.randrange(3)
    if form == 0:
        return f'"{last}, {first}" <{first.lower()}.{last.lower()}@{domain}>'
    return f"{first} {last} <{first.lower()}@{domain}>" if form == 1 else f"{first.lower()}@{domain}"


def _folded(name: str, items: list[str]) -> str:
    return f"{name}: " + ",\n\t".join(items)


def _subject(rng: random.Random, *, rare: bool) -> str:
    words = [rng.choice(WORDS) for _ in range(rng.randint(2, 9))]
    if rare:
        words.append(RARE)
    elif rng.random() < 0.3:
        words.insert(1, rng.choice(UMLAUTS))
        charset = rng.choice(("utf-8", "utf-8", "iso-8859-1"))
        prefix = rng.choice(("", "Re: ", "AW: "))
        try:
            return prefix + Header(" ".join(words), charset, maxlinelen=70).encode(linesep="\n")
        except UnicodeEncodeError:
            return prefix + Header(" ".join(words), "utf-8", maxlinelen=70).encode(linesep="\n")
    return rng.choice(("", "Re: ", "Re: ", "Fwd: ", "[team] ")) + " ".join(words)


def _token(rng: random.Random, length: int) -> str:
    return base64.b64encode(rng.randbytes(length)).decode().rstrip("=")


def _trace(rng: random.Random, date: str) -> list[str]:
    lines = []
    for hop in range(rng.randint(2, 5)):
        host = f"mx{hop}.{rng.choice(DOMAINS)}"
        lines.append(
            f"Received: from {rng.choice(NAMES).lower()}.{rng.choice(DOMAINS)} (unknown [192.0.2.{rng.randrange(254)}])\n"
            f"\tby {host} (Postfix) with ESMTPS id {rng.randrange(16**10):010X}\n"
            f"\tfor <u{rng.randrange(200)}@example.test>; {date}"
        )
    if rng.random() < 0.7:
        text = "\n\t ".join(_token(rng, 48) for _ in range(4))
        lines.append(
            f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={rng.choice(DOMAINS)};\n"
            f"\ts=s{rng.randrange(9)}; h=from:to:subject:date:message-id:mime-version;\n\tbh={_token(rng, 32)}=;\n\tb={text}"
        )
        lines.append(
            f"Authentication-Results: mx.example.test;\n\tdkim=pass header.d={rng.choice(DOMAINS)};\n"
            f"\tspf=pass (sender IP is 192.0.2.{rng.randrange(254)}) smtp.mailfrom={rng.choice(DOMAINS)}"
        )
    if rng.random() < 0.4:
        lines.append(
            f"X-Spam-Status: No, score=-{rng.randrange(40) / 10} required=5.0\n\ttests=BAYES_00,DKIM_SIGNED,DKIM_VALID"
        )
    return lines


def _header(rng: random.Random, seed: int, *, rare: bool, to_list: bool) -> list[str]:
    date = _date(seed)
    sender = _address(rng)
    many = rng.random() < 0.05
    receivers = [
        _address(rng) for _ in range(min(200, int(rng.lognormvariate(3, 0.9)) + 10) if many else rng.randint(1, 3))
    ]
    fields = [
        f"Return-Path: <bounce{rng.randrange(10**6)}@{rng.choice(DOMAINS)}>",
        f"Delivered-To: u{seed % 200}@example.test",
    ]
    fields += _trace(rng, date)
    fields += [f"From: {sender}", _folded("To", receivers)]
    if rng.random() < 0.25:
        fields.append(_folded("Cc", [_address(rng) for _ in range(rng.randint(1, 5))]))
    if rng.random() < 0.15:
        fields.append(f"Reply-To: {_address(rng)}")
    fields += [f"Subject: {_subject(rng, rare=rare)}", f"Date: {date}", f"Message-ID: {_message_id(seed)}"]
    # Threads of six: a message replies to those before it.
    earlier = [_message_id(number) for number in range(seed - seed % 6, seed)]
    if earlier:
        fields += [f"In-Reply-To: {earlier[-1]}", "References: " + "\n\t".join(earlier)]
    if to_list:
        fields += [
            "List-Id: News of the harbour <news.lists.example.org>",
            f"List-Unsubscribe: <https://lists.example.org/leave/{_token(rng, 24).replace('/', '_')}>,\n\t<mailto:leave@lists.example.org>",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            "Precedence: bulk",
        ]
    if rng.random() < 0.5:
        fields.append(f"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:115.0) Thunderbird/115.{rng.randrange(20)}.0")
    return [*fields, "MIME-Version: 1.0"]


def _message_id(seed: int) -> str:
    return f"<{seed * 2654435761 % 16**10:010x}.{seed}@{DOMAINS[seed % 3]}>"


def _paragraph(rng: random.Random, words: int, share: float = 0.0) -> str:
    text = " ".join(rng.choice(UMLAUTS) if rng.random() < share else rng.choice(WORDS) for _ in range(words))
    return text.capitalize() + "."


def _lines(rng: random.Random, count: int, share: float) -> list[str]:
    """Return text of so many lines, some of them quoted."""
    quoted = rng.random() < 0.5
    return [
        ("> " if quoted and number > count // 2 else "") + _paragraph(rng, rng.randint(4, 11), share)
        for number in range(count)
    ]


def _text_part(rng: random.Random, count: int, *, rare: bool = False) -> list[str]:
    encoding = rng.choice(("7bit", "8bit", "8bit", "quoted-printable"))
    text = "\n".join([*_lines(rng, count, 0.0 if encoding == "7bit" else 0.08), *([RARE] if rare else ())])
    if encoding == "quoted-printable":
        text = quopri.encodestring(text.encode()).decode()
    charset = "us-ascii" if encoding == "7bit" else "utf-8"
    return [
        f"Content-Type: text/plain; charset={charset}; format=flowed",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        text,
    ]


def _html_part(rng: random.Random, count: int) -> list[str]:
    cells = []
    for number in range(count):
        text = quopri.encodestring(_paragraph(rng, rng.randint(8, 30), 0.05).encode()).decode()
        cells.append(
            f'<tr><td {_STYLE}><p>=\n{text}</p><a href=3D"https://www.example.org/article/{number}?id=3D=\n'
            f'{_token(rng, 18)}">{rng.choice(WORDS)}</a></td></tr>'
        )
    return [
        "Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "",
        '<!DOCTYPE html><html><head><meta charset=3D"utf-8"></head><body><table width=3D"600">', *cells, "</table></body></html>",
    ]  # fmt: skip


def _file_head(name: str) -> list[str]:
    kind = {"pdf": "application/pdf", "png": "image/png", "jpeg": "image/jpeg"}.get(
        name.rpartition(".")[2], "application/zip"
    )
    return [
        f'Content-Type: {kind}; name="{name}"', "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment; filename="{name}"',
    ]  # fmt: skip


@cache
def _base64(start: int, octets: int) -> str:
    return base64.encodebytes(random.Random(start).randbytes(octets)).decode().rstrip("\n")


def _file(rng: random.Random) -> list[str]:
    octets = min(150_000, int(rng.lognormvariate(9.05, 1.1)))
    name = f"{rng.choice(WORDS)}-{rng.randrange(999)}.{rng.choice(('pdf', 'png', 'jpeg', 'zip'))}"
    return [*_file_head(name), "", _base64(rng.randrange(50), octets // 3 * 3)]


def _boundary(rng: random.Random) -> str:
    return f"----=_Part_{rng.randrange(10**6)}_{rng.randrange(10**9)}.{rng.randrange(10**12)}"


def _multipart(rng: random.Random, subtype: str, parts: list[list[str]]) -> list[str]:
    boundary = _boundary(rng)
    lines = [
        f'Content-Type: multipart/{subtype};\n\tboundary="{boundary}"',
        "",
        "This is a multi-part message in MIME format.",
    ]
    for part in parts:
        lines += [f"--{boundary}", *part]
    return [*lines, f"--{boundary}--"]


def _mixed_head(boundary: str) -> list[str]:
    return [f'Content-Type: multipart/mixed; boundary="{boundary}"', "", f"--{boundary}"]


def _text(rng: random.Random, rare: bool) -> list[str]:
    return _text_part(rng, min(120, int(rng.lognormvariate(2.5, 0.9)) + 2), rare=rare)


def _newsletter(rng: random.Random, rare: bool) -> list[str]:
    count = min(60, int(rng.lognormvariate(1.35, 0.8)) + 2)
    return _multipart(rng, "alternative", [_text_part(rng, count * 2, rare=rare), _html_part(rng, count)])


def _attachment(rng: random.Random, rare: bool) -> list[str]:
    text = _multipart(rng, "alternative", [_text_part(rng, 8, rare=rare), _html_part(rng, 4)])
    return _multipart(rng, "mixed", [text, *(_file(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))])


def _inline(rng: random.Random, rare: bool) -> list[str]:
    pictures = [[f"Content-ID: <{_token(rng, 9)}@example.net>", *_file(rng)] for _ in range(rng.randint(1, 2))]
    return _multipart(rng, "related", [_html_part(rng, 5), *pictures])


def _forwarded(rng: random.Random, rare: bool) -> list[str]:
    inner = message(rng.randrange(1_000_000, 2_000_000)).decode().rstrip("\n")
    return _multipart(rng, "mixed", [_text_part(rng, 5, rare=rare), ["Content-Type: message/rfc822", "", inner]])


def _invitation(rng: random.Random, rare: bool) -> list[str]:
    event = [
        "BEGIN:VCALENDAR", "VERSION:2.0", "METHOD:REQUEST", "BEGIN:VEVENT", f"UID:{_token(rng, 15)}@example.net",
        "DTSTART:20240105T100000Z", f"SUMMARY:{_paragraph(rng, 4)}", *(f"ATTENDEE:mailto:{name.lower()}@example.net" for name in NAMES[:8]),
        "END:VEVENT", "END:VCALENDAR",
    ]  # fmt: skip
    calendar = [
        "Content-Type: text/calendar; charset=utf-8; method=REQUEST",
        "Content-Transfer-Encoding: 7bit",
        "",
        *event,
    ]
    return _multipart(rng, "alternative", [_text_part(rng, 6, rare=rare), calendar])


def _report(rng: random.Random, rare: bool) -> list[str]:
    status = [
        "Content-Type: message/delivery-status", "", "Reporting-MTA: dns; mx.example.test", "",
        f"Final-Recipient: rfc822; {rng.choice(NAMES).lower()}@example.org", "Action: failed", "Status: 5.1.1",
    ]  # fmt: skip
    header = ["Content-Type: text/rfc822-headers", "", *_header(rng, rng.randrange(10**6), rare=False, to_list=False)]
    return _multipart(rng, "report; report-type=delivery-status", [_text_part(rng, 6, rare=rare), status, header])


_BODIES = {
    "text": _text,
    "newsletter": _newsletter,
    "attachment": _attachment,
    "inline": _inline,
    "forwarded": _forwarded,
    "invitation": _invitation,
    "report": _report,
}
