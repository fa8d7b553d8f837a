"""ENHANCEDSTATUSCODES (RFC 2034): `mailserver.smtp.wire.Reply` writes a status code of RFC 3463 on each line."""

from __future__ import annotations

from mailserver.smtp.command import Extension

EXTENSIONS = (Extension("ENHANCEDSTATUSCODES", "RFC 2034", defined_in=__name__),)
