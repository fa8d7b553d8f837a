"""SMTP and LMTP octets without I/O: DATA, line ends, replies (RFC 5321, RFC 3030). `mailserver.session.lines` cuts lines.

Problems: message data must never be run as commands, and commands must never become part of a message, for
any cut of the stream; a sequence that other programs might take for the end of a message must not be accepted.

Rules: DATA ends at CRLF "." CRLF and at nothing else. A bare CR or LF marks the message as refused, and it is still
read to its end. BDAT is counted in octets, refused or not.
"""

from __future__ import annotations

from attrs import frozen

from mailserver.errors import BadMessage, MailError

MAX_LINE = 12288 + 512
"""Octets of the longest command line kept: AUTH with its initial response (RFC 4954 4); others are at most 512."""

_END = b"\r\n.\r\n"


class DataDecoder:
    """Decodes the message behind DATA: removes dot-stuffing and finds the end (RFC 5321 4.5.2)."""

    def __init__(self) -> None:
        # The data begins at the start of a line, as if a CRLF came before, which is not returned.
        self._held = b"\r\n"
        self._skip = 2
        self.done = False
        self.rest = b""
        """The octets behind the end: commands."""

    def receive_data(self, data: bytes) -> bytes:
        """The next part of the message."""
        data = self._held + data
        end = data.find(_END)
        if end >= 0:
            self.done = True
            self.rest = data[end + len(_END) :]
            self._held = b""
            data = data[: end + 2]
        else:
            # Neither CRLF nor CRLF "." is ever cut in two between parts.
            held = next((size for size in (4, 3, 2, 1) if data.endswith(_END[:size])), 0)
            self._held = data[len(data) - held :]
            data = data[: len(data) - held]
        if self._skip and data:
            text = data.replace(b"\r\n.", b"\r\n")[2:]
            self._skip = 0
            return text
        return data.replace(b"\r\n.", b"\r\n")


class LineEnds:
    """Checks that a message has CR and LF only as CRLF, and no NUL (RFC 5321 2.3.8, RFC 5322 2.1)."""

    def __init__(self) -> None:
        self._after_cr = False
        self.complete = True
        """Does the message so far end with CRLF (or is it empty)?"""

    def check(self, data: bytes) -> None:
        """Check the next part. Raises: BadMessage; then call it no more."""
        if not data:
            return
        returns, feeds, pairs = data.count(b"\r"), data.count(b"\n"), data.count(b"\r\n")
        if self._after_cr:
            if not data.startswith(b"\n"):
                raise BadMessage("the message has a CR that no LF follows")
            feeds -= 1
        ended = self._after_cr and data == b"\n"
        self._after_cr = data.endswith(b"\r")
        if returns - self._after_cr != pairs or feeds != pairs:
            raise BadMessage("the message has a CR or LF that is not part of a CRLF: each line must end with CRLF")
        if b"\0" in data:
            raise BadMessage("the message has a NUL")
        self.complete = ended or data.endswith(b"\r\n")

    def finish(self) -> None:
        """Check the end of the message. Raises: BadMessage."""
        if self._after_cr:
            raise BadMessage("the message has a CR that no LF follows")


@frozen
class Reply:
    """One reply of one or more lines (RFC 5321 4.2), each with its enhanced status (RFC 2034 4)."""

    code: int
    enhanced: str | None
    lines: tuple[str, ...]

    def write(self) -> bytes:
        """Its bytes."""
        status = f"{self.enhanced} " if self.enhanced else ""
        last = len(self.lines) - 1
        written = [f"{self.code}{'-' if at < last else ' '}{status}{line}\r\n" for at, line in enumerate(self.lines)]
        return "".join(written).encode("ascii", "replace")


def reply(code: int, enhanced: str | None, *lines: str) -> Reply:
    """A reply."""
    return Reply(code, enhanced, lines)


def reply_to(error: MailError) -> Reply:
    """The reply for an expected failure."""
    code, enhanced = error.smtp_reply
    return Reply(code, enhanced, (error.sentence,))
