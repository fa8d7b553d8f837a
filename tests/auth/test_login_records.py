"""Records of logins: the rule of each error, and names that may be passwords."""

from ipaddress import ip_address

import pytest

from mailserver.auth.interfaces import LoginContext, User
from mailserver.auth.login_records import login_record, refusal_record
from mailserver.errors import (
    AuthFailed,
    AuthorizationFailed,
    AuthUnavailable,
    LimitReached,
    MailError,
    StorageFailure,
    TooManyLogins,
)
from mailserver.explain.names import shown_name
from mailserver.explain.trace import Rule, Trace

ANNA = "anna@example.test"


def context(**changes: object) -> LoginContext:
    trace = Trace(**changes)  # type: ignore[arg-type]
    return LoginContext("imap", ip_address("192.0.2.1"), "mail.example.test", "s1", tls="TLSv1.3", trace=trace)


@pytest.mark.parametrize(
    ("error", "trace", "rule"),
    [
        (AuthFailed("x"), Trace(rule=Rule.NETWORK, user=ANNA), Rule.NETWORK),
        (AuthFailed("x"), Trace(), Rule.EXCHANGE),
        # What the trace has may be of a step before the one that failed.
        (AuthUnavailable(), Trace(rule=Rule.WRONG), Rule.UNAVAILABLE),
        (TooManyLogins(), Trace(rule=Rule.WRONG), Rule.TOO_MANY),
        (TooManyLogins(), Trace(rule=Rule.BANNED), Rule.BANNED),
        (MailError(), Trace(rule=Rule.CANCELLED), Rule.CANCELLED),
        (AuthorizationFailed(), Trace(rule=Rule.CERTIFICATE, user=ANNA), Rule.AUTHORIZATION),
        (LimitReached("too many sessions"), Trace(rule=Rule.CERTIFICATE, user=ANNA), Rule.LIMIT),
        (StorageFailure(), Trace(rule=Rule.CERTIFICATE, user=ANNA), Rule.MAILBOX),
        (MailError(), Trace(), Rule.OTHER),
    ],
)
def test_the_rule_of_each_error(error: MailError, trace: Trace, rule: Rule) -> None:
    given = LoginContext("imap", None, None, "s1", trace=trace)
    record = refusal_record(error, "7KQF-2M9X", (ANNA, ANNA), "PLAIN", given)
    assert record.rule == rule.value
    assert record.reason == error.reason
    assert record.peer == ""


def test_a_name_that_may_be_a_password_is_in_no_field() -> None:
    for typed in ("hunter2", "hunter2@home", "hunter2 x"):
        names = (typed,) if "@" in typed else (typed, f"{typed}@example.test")
        record = refusal_record(AuthFailed("x"), "7KQF-2M9X", (typed, shown_name(typed)), "PLAIN", context(names=names))
        assert "hunter2" not in str(record)
        assert "home" not in str(record)
        assert record.typed == f"({len(typed)} characters)"
    found = context(names=("anna", ANNA), user=ANNA)
    known = refusal_record(AuthFailed("x"), "7KQF-2M9X", ("anna", "anna"), "PLAIN", found)
    assert (known.typed, known.names) == ("anna", ("anna", ANNA))


def test_a_login() -> None:
    record = login_record(User(ANNA, credential="app1"), "PLAIN", context())
    assert not record.refused
    assert (record.user, record.credential, record.peer, record.tls) == (ANNA, "app1", "192.0.2.1", "TLSv1.3")


def test_a_delegate_and_its_user_are_both_named() -> None:
    record = login_record(User(ANNA, delegate="admin@example.org"), "PLAIN", context())
    assert (record.user, record.delegate, record.owner) == (ANNA, "admin@example.org", "admin@example.org")
    wanted = context(user="admin@example.org", acting_for=ANNA)
    typed = f"{ANNA}*admin@example.org"
    refused = refusal_record(AuthorizationFailed(), "7KQF-2M9X", (typed, typed), "PLAIN", wanted)
    assert (refused.user, refused.delegate) == (ANNA, "admin@example.org")
    unknown = refusal_record(AuthFailed("x"), "7KQF-2M9X", (typed, typed), "PLAIN", context(acting_for=ANNA))
    assert (unknown.user, unknown.delegate) == ("", "")
