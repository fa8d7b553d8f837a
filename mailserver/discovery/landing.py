"""The web page at a host's root: mail client settings, and links to the rest."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mailserver.discovery.services import Service
from mailserver.discovery.wording import KIND_WORDS, security


def page(domain: str, offered: Sequence[Service], *, has_authority: bool, has_profile: bool) -> bytes:
    """Make the HTML page.

    `has_authority` links to the private authority at /ca; `has_profile` offers the profile for Apple Mail.
    """
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>Mail of {escape(domain)}</title></head><body>",
        f"<h1>Mail of {escape(domain)}</h1>",
    ]
    if offered:
        parts += [
            "<p>Most mail clients need only your address and password. If one asks for more:</p>",
            "<table><tr><th></th><th>Server</th><th>Port</th><th>Security</th></tr>",
            *(
                f"<tr><td>{KIND_WORDS[each.kind]}</td><td>{escape(each.host)}</td><td>{each.port}</td>"
                f"<td>{security(each)}</td></tr>"
                for each in offered
            ),
            (
                "</table><p>The user name is the whole address; use a normal password. The first line of each kind is the "
                'best. Never choose "TLS, if available".</p>'
            ),
        ]
    if has_profile:
        parts.append(
            '<h2>iPhone, iPad, Mac</h2><form action="/profile.mobileconfig" method="get">'
            '<label>Address: <input type="email" name="emailaddress" required></label> '
            '<button type="submit">Get the profile</button></form>'
        )
    if has_authority:
        parts.append(
            '<h2>"The certificate is not trusted"</h2>'
            '<p><a href="/ca">How to make mail clients trust the certificates of this server</a></p>'
        )
    parts.append("</body></html>\n")
    return "\n".join(parts).encode()
