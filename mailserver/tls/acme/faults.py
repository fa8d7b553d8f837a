"""Errors of an ACME authority and of the way to it: one sentence for people, and whether they are temporary (RFC 8555 6.7)."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Final

import requests
from acme import errors, messages

from mailserver.tls.acme.challenges import ChallengeFailed

_PREFIX: Final = "urn:ietf:params:acme:error:"
_PASSING: Final = ("badNonce", "rateLimited", "serverInternal")
"""Problem types that do not concern the request itself."""
_MOST: Final = 5
"""Maximum number of subproblems shown."""


class NoAccount(Exception):
    """The authority has no account for this key."""


def code_of(error: Exception) -> str:
    """Return the type of a problem without its prefix, such as `rateLimited`; "" if it is no problem of ACME."""
    if isinstance(error, NoAccount):
        return "accountDoesNotExist"
    kind = str(error.typ) if isinstance(error, messages.Error) else ""
    return kind.removeprefix(_PREFIX) if kind.startswith(_PREFIX) else ""


def is_decided(error: Exception) -> bool:
    """Has the authority decided, so that repeating the same order is useless?"""
    if isinstance(error, messages.Error):
        return code_of(error) not in ("", *_PASSING)
    return isinstance(error, errors.ValidationError | errors.IssuanceError | NoAccount)


def is_passing(error: Exception, status: int) -> bool:
    """Is the failure temporary, as far as is known? `status` is the answer's, 0 without one."""
    if code_of(error):
        return not is_decided(error)
        # A problem without a type of ACME may come from a proxy in between.
    if isinstance(error, messages.Error) or _answer(error) is not None:
        return status >= 500 or status == 429
    return isinstance(error, requests.exceptions.RequestException | errors.TimeoutError)


def error_text(error: Exception) -> str:
    """Describe a failure to the administrator in one line."""
    response = _answer(error)
    match error:
        case ChallengeFailed():
            words = str(error)
        case errors.ValidationError():
            found = [
                f"{authorization.body.identifier.value}: {_problem(challenge.error)}"
                for authorization in error.failed_authzrs
                for challenge in authorization.body.challenges
                if challenge.error is not None
            ]
            words = "the authority could not verify " + "; ".join(found)
        case errors.TimeoutError():
            words = "the authority did not decide in time"
        case errors.IssuanceError():
            words = f"the authority issued nothing: {_problem(error.error)}"
        case messages.Error():
            words = f"the authority refuses: {_problem(error)}"
        case requests.exceptions.RequestException():
            words = _unreached(error)
        case NoAccount():
            words = "the authority has no account for this server's key"
        case _ if response is not None:
            words = f"the authority answers with status {response.status_code} {response.reason or ''} without a reason"
        case errors.ConflictError():
            words = "the authority reports a conflict (status 409)"
        case errors.ClientError() if type(error) is errors.ClientError:
            words = f"the authority's answer is invalid: {error}"
        case _:
            words = f"the authority's answer cannot be parsed: {type(error).__name__}: {error}"
    return " ".join(words.split())


def _problem(error: messages.Error) -> str:
    """Describe a problem document (RFC 7807) with its subproblems (RFC 8555 6.7.1)."""
    parts = [_one(error)]
    for each in (error.subproblems or ())[:_MOST]:
        name = f"{each.identifier.value}: " if each.identifier is not None else ""
        parts.append(f"{name}{_one(each)}")
    return "; ".join(parts)


def _one(error: messages.Error) -> str:
    what = error.detail or error.title or error.description or "no reason given"
    code = code_of(error)
    return f"{code}: {what}" if code else str(what)


def _unreached(error: requests.exceptions.RequestException) -> str:
    """Describe a connection failure without the libraries' own words."""
    address = str(error.request.url or "") if error.request is not None else ""
    where = urllib.parse.urlsplit(address).netloc or "its address"
    if isinstance(error, requests.exceptions.Timeout):
        return f"the authority cannot be reached: {where} does not answer in time"
    causes = [each for each in _causes(error) if not isinstance(each, requests.exceptions.RequestException)]
    reason = next((words for each in causes if (words := _reason(each))), "") or str(next(iter(causes), error))
    if isinstance(error, requests.exceptions.SSLError):
        return f"the certificate of {where} is not trusted (ca_file): {reason}"
    return f"the authority cannot be reached: {where}: {reason}"


def _reason(error: BaseException) -> str:
    return str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or "")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Iterate over the chain of causes, the first cause first."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and len(found) < 20:
        found.append(cause)
    return reversed(found)


def _answer(error: Exception) -> requests.Response | None:
    """Return the HTTP response without a problem document that the library attached to the error."""
    if not isinstance(error, errors.ClientError) or not error.args:
        return None
    first = error.args[0][0] if isinstance(error.args[0], tuple) and error.args[0] else error.args[0]
    return first if isinstance(first, requests.Response) else None
