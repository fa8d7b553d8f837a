"""Small, plain messages, for comparison with those of `benchmarks.corpus`: ASCII text, CRLF line ends, short headers."""

from __future__ import annotations

import base64
import random
import time

from benchmarks.corpus import RARE

WORDS = [
    "meeting",
    "invoice",
    "report",
    "garden",
    "river",
    "window",
    "summer",
    "winter",
    "letter",
    "number",
    "market",
    "answer",
    "friend",
    "system",
    "paper",
    "travel",
    "kitchen",
    "doctor",
    "music",
    "school",
    "street",
    "evening",
    "morning",
    "signal",
    "basket",
    "orange",
    "purple",
    "engine",
    "harbour",
    "bridge",
]
NAMES = [
    "Anna",
    "Bert",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Greta",
    "Hans",
    "Ida",
    "Jan",
    "Karla",
    "Leo",
    "Mia",
    "Nils",
    "Olga",
    "Paul",
]


def message(seed: int, size: int = 4000) -> bytes:
    """Return the message of a seed with CRLF line ends, of about that size: every third has an attachment."""
    rng = random.Random(seed)
    sender, receiver = rng.choice(NAMES), rng.choice(NAMES)
    subject = " ".join(rng.choice(WORDS) for _ in range(5))
    if seed % 1000 == 17:
        subject += " " + RARE
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(1_700_000_000 + seed * 600))
    lines = [
        f"Return-Path: <{sender.lower()}@example.net>",
        f"Received: from mx{seed % 7}.example.net (mx.example.net [192.0.2.{seed % 250}]) by mail.example.test; {date}",
        f"From: {sender} Example <{sender.lower()}@example.net>",
        f"To: {receiver} Example <{receiver.lower()}@example.test>",
        f"Subject: {subject}",
        f"Date: {date}",
        f"Message-ID: <{seed}.{rng.randrange(10**9)}@example.net>",
        "MIME-Version: 1.0",
    ]
    text = []
    length = 0
    while length < size * 2 // 3:
        line = " ".join(rng.choice(WORDS) for _ in range(10))
        text.append(line)
        length += len(line) + 2
    if seed % 1000 == 17:
        text.append(RARE)
    if seed % 3 == 0:
        payload = base64.encodebytes(rng.randbytes(size // 4)).decode().replace("\n", "\r\n")
        lines += [
            'Content-Type: multipart/mixed; boundary="=_b"', "", "--=_b", "Content-Type: text/plain; charset=utf-8", "",
            *text, "--=_b", 'Content-Type: image/png; name="picture.png"', "Content-Transfer-Encoding: base64",
            'Content-Disposition: attachment; filename="picture.png"', "", payload, "--=_b--", "",
        ]  # fmt: skip
    else:
        lines += ["Content-Type: text/plain; charset=utf-8", "", *text, ""]
    return "\r\n".join(lines).encode()
