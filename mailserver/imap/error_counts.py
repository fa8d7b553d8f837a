"""The errors of one session, and the numbers of them that end it."""

from __future__ import annotations

from mailserver.errors import AuthFailed, MailError, PrivacyRequired
from mailserver.session.sasl_exchange import ProofMissing

ERRORS_BEFORE_LOGIN = 5
"""In a row."""
ERRORS_AFTER_LOGIN = 10
FAILED_LOGINS = 5
"""In one connection, whatever comes between them."""
CLEARTEXT_LOGINS = 20
"""Logins before TLS in one connection: right or wrong, they get the same answer."""


class ErrorCounts:
    """Counts of one session."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._failed_logins = 0
        self._cleartext_logins = 0

    def note_success(self) -> None:
        """Count a command that succeeded."""
        self._in_a_row = 0

    def note(self, error: MailError) -> None:
        """Count a refusal. NO is no error of the client, unless it is that of a login."""
        failed_login = isinstance(error, AuthFailed | ProofMissing)
        self._cleartext_logins += isinstance(error, PrivacyRequired)
        self._failed_logins += failed_login
        if error.imap_status == "BAD" or failed_login:
            self._in_a_row += 1
        else:
            self._in_a_row = 0

    def excess(self, *, logged_in: bool) -> str:
        """The reason to end the session, for BYE; empty if there is none."""
        if self._in_a_row >= (ERRORS_AFTER_LOGIN if logged_in else ERRORS_BEFORE_LOGIN):
            return "too many errors"
        if self._failed_logins >= FAILED_LOGINS or self._cleartext_logins >= CLEARTEXT_LOGINS:
            return "too many failed logins"
        return ""
