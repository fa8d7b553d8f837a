"""The messages of a demonstration mailbox: few, and each difficult for some mail programs."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from attrs import frozen

_PIXEL = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@frozen
class Sample:
    """One message."""

    age: timedelta
    """Its age."""
    data: bytes
    """The content of the file; some have CRLF, some LF."""


def sample_messages(user: str, domain: str, now: datetime) -> Iterator[Sample]:
    """The messages for one user, oldest first."""
    for number, (days, text) in enumerate(_TEXTS, 1):
        age = timedelta(days=days, minutes=7 * number)
        values = {
            b"@TO@": user.encode("utf-8"),
            b"@DOMAIN@": domain.encode("ascii"),
            b"@DATE@": format_datetime(now - age).encode("ascii"),
            b"@ID@": f"sample-{number}@{domain}".encode("ascii"),
            b"@PIXEL@": _PIXEL,
            b"@RANDOM@": _random_block(number),
        }
        data = text
        for place, value in values.items():
            data = data.replace(place, value)
        # Alternately LF, as written by a mail transfer agent, and CRLF, as received.
        yield Sample(age, data.replace(b"\n", b"\r\n") if number % 2 else data)


def now() -> datetime:
    """The current time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _random_block(seed: int) -> bytes:
    """100 kB of incompressible data, base64 in lines of 76."""
    data = random.Random(seed).randbytes(100_000)  # noqa: S311 - filler
    return base64.encodebytes(data).rstrip(b"\n")


_HEAD = b"To: <@TO@>\nDate: @DATE@\nMessage-ID: <@ID@>\nMIME-Version: 1.0\n"

_PLAIN = (
    b"""From: "Ada Lovelace" <ada@example.net>
Subject: Plain text with lines of dots
"""
    + _HEAD
    + b"""Content-Type: text/plain; charset=us-ascii; format=flowed

The next lines begin with dots, and POP3 and SMTP must double them:
.
..
.hidden
From the margin, too, a line may begin.
--\x20
Ada
"""
)

_ALTERNATIVE = (
    b"""From: =?utf-8?B?WsO8cmNoZXIgS8OkbnplbGVp?= <office@example.net>
Subject: =?utf-8?Q?Vertrag_und_=C3=9Cbersicht=3A_zwei_Fassungen=2C_ein?=
 =?utf-8?Q?_Bild=2C_eine_Beilage?=
"""
    + _HEAD
    + b"""Content-Type: multipart/mixed; boundary="outer"

This is a message in MIME format.

--outer
Content-Type: multipart/alternative; boundary="outer-inner"

--outer-inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Gr=C3=BCezi, der Vertrag ist beigelegt. Eine lange Zeile wird =
weich umbrochen.

--outer-inner
Content-Type: multipart/related; boundary="outer-inner-most"; type="text/html"

--outer-inner-most
Content-Type: text/html; charset=utf-8

<p>Gr\xc3\xbcezi, <b>der Vertrag</b> ist beigelegt. <img src="cid:pixel@@DOMAIN@" alt=""></p>

--outer-inner-most
Content-Type: image/png; name="pixel.png"
Content-Transfer-Encoding: base64
Content-ID: <pixel@@DOMAIN@>
Content-Disposition: inline; filename="pixel.png"

@PIXEL@

--outer-inner-most--

--outer-inner--

--outer
Content-Type: application/pdf; name*0*=utf-8'de'Vertrag%20%C3%BCber%20die;
 name*1*=%20Lieferung%20von%20B%C3%BCchern; name*2=".pdf"
Content-Transfer-Encoding: base64
Content-Disposition: attachment;
 filename*0*=utf-8'de'Vertrag%20%C3%BCber%20die;
 filename*1*=%20Lieferung%20von%20B%C3%BCchern; filename*2=".pdf";
 size=100000
Content-Description: =?iso-8859-1?Q?Vertrag_f=FCr_Sie?=

@RANDOM@

--outer--
That was all.
"""
)

_FORWARDED = (
    b"""From: Grace Hopper <grace@example.net>
Subject: Fwd: nested messages
References: <first@example.net> <second@example.net>
In-Reply-To: <second@example.net>
"""
    + _HEAD
    + b"""Content-Type: multipart/mixed; boundary=level-1

--level-1
Content-Type: text/plain

Two messages, one inside the other.
--level-1
Content-Type: message/rfc822
Content-Disposition: attachment; filename="second.eml"

From: second@example.net
To: grace@example.net
Subject: the second, with the first in it
Message-ID: <second@example.net>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=level-1-and-2

--level-1-and-2

No header at all: text/plain, us-ascii.
--level-1-and-2
Content-Type: message/rfc822

Subject: the first
Message-ID: <first@example.net>
Content-Language: en, de

Deep inside.

--level-1-and-2--

--level-1--
"""
)

_KOI8_R = (
    b"""From: =?koi8-r?B?58XO?= <gen@example.net>
Subject: =?koi8-r?Q?=F0=D2=C9=D7=C5=D4_=C9=DA_=ED=CF=D3=CB=D7=D9?=
"""
    + _HEAD
    + b"Content-Type: text/plain; charset=koi8-r\nContent-Transfer-Encoding: 8bit\n\n"
    # "Hello, this letter comes in KOI8-R. Look for the word for 'encoding' in it."
    + 'Привет, это письмо в кодировке KOI8-R.\nИщите в нём слово "кодировка".\n'.encode("koi8-r")  # noqa: RUF001
)

_RAW_EIGHT_BIT = (
    "From: Zoë Müller <zoe@example.net>\nSubject: Überschrift ohne Kodierung\n".encode()
    + _HEAD.replace(b"MIME-Version: 1.0\n", b"")
    + "\nEin Text in Latin-1, ohne dass es jemand sagt: schön.\n".encode("latin-1")
)

_EMPTY = (
    b"""From: nobody@example.net
Subject: (nothing below)
"""
    + _HEAD
    + b"\n"
)

_DIGEST = (
    b"""From: "List, The" (comment (nested)) <list@example.net>
Sender: list-owner@example.net
Reply-To: Authors: one@example.net, "T. W. O." <two@example.net>;
Cc: Undisclosed recipients:;
Subject: Digest, Vol 1
List-Id: The list <list.example.net>
"""
    + _HEAD
    + b"""Content-Type: multipart/digest; boundary="=_digest:(1)/?"

--=_digest:(1)/?

From: one@example.net
Subject: a message without a type is message/rfc822 here

One.
--=_digest:(1)/?

From: two@example.net
Subject: so is this

Two.
--=_digest:(1)/?--
"""
)

_REPORT = (
    b"""From: Mail Delivery System <MAILER-DAEMON@example.net>
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
"""
    + _HEAD
    + b"""Content-Type: multipart/report; report-type=delivery-status; boundary="report"

--report
Content-Type: text/plain; charset=us-ascii
Content-Description: Notification

Your message could not be delivered.

--report
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.net

Final-Recipient: rfc822; unknown@example.net
Action: failed
Status: 5.1.1

--report
Content-Type: text/rfc822-headers

From: <@TO@>
Subject: never arrived

--report--
"""
)

_INVITATION = (
    b"""From: Katherine Johnson <katherine@example.net>
Subject: Invitation: launch
"""
    + _HEAD
    + b"""Content-Type: multipart/alternative; boundary="cal"

--cal
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

TGF1bmNoIG9uIE1vbmRheSDwn5qALg==

--cal
Content-Type: text/calendar; method=REQUEST; charset=utf-8
Content-Transfer-Encoding: 7bit

BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//example.net//EN
METHOD:REQUEST
BEGIN:VEVENT
UID:launch@example.net
DTSTAMP:20300101T000000Z
DTSTART:20300107T090000Z
SUMMARY:Launch
END:VEVENT
END:VCALENDAR

--cal--
"""
)

_WELCOME = (
    b"""From: Postmaster <postmaster@@DOMAIN@>
Subject: =?utf-8?Q?Welcome_to_@DOMAIN@_=E2=80=94_it_works?=
"""
    + _HEAD
    + """Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

You read this over a connection secured for mail.@DOMAIN@.

The other messages here are hard to read for some programs on purpose: nested,
in several character sets, with long file names, or empty. Send one yourself:
submission takes it from <@TO@> and delivers to every account here.
Übrigens: 日本語, Ελληνικά, עברית.
""".encode()
)

_TEXTS = (
    (20, _PLAIN),
    (14, _ALTERNATIVE),
    (11, _FORWARDED),
    (9, _KOI8_R),
    (7, _RAW_EIGHT_BIT),
    (5, _EMPTY),
    (3, _DIGEST),
    (2, _REPORT),
    (1, _INVITATION),
    (0, _WELCOME),
)
"""Days before now, and the message with LF and @PLACES@."""
