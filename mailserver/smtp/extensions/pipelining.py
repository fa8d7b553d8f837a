"""PIPELINING (RFC 2920): a client may send commands without waiting. `LineSession` runs them one after another."""

from __future__ import annotations

from mailserver.smtp.command import Extension

EXTENSIONS = (Extension("PIPELINING", "RFC 2920", defined_in=__name__),)
