"""What an ACME authority, or the way to it, has against a request: in a sentence, and whether it passes (RFC 8555 6.7)."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Final

import requests
from acme import errors, messages

from mailserver.tls.acme.challenges import CannotProve

_PREFIX: Final = "urn:ietf:params:acme:error:"
_PASSING: Final = ("badNonce", "rateLimited", "serverInternal")
"""Problems that say nothing of what was asked for."""
_MOST: Final = 5
"""Subproblems that are told."""


class NoAccount(Exception):
    """The authority knows no account of this key."""


def code_of(error: Exception) -> str:
    """The type of a problem without its prefix, `rateLimited` say; "" for what is no problem of ACME."""
    if isinstance(error, NoAccount):
        return "accountDoesNotExist"
    kind = str(error.typ) if isinstance(error, messages.Error) else ""
    return kind.removeprefix(_PREFIX) if kind.startswith(_PREFIX) else ""


def is_decided(error: Exception) -> bool:
    """Has the authority decided, so that the same order is of no use any more?"""
    if isinstance(error, messages.Error):
        return code_of(error) not in ("", *_PASSING)
    return isinstance(error, errors.ValidationError | errors.IssuanceError | NoAccount)


def is_passing(error: Exception, status: int) -> bool:
    """May the same request have another answer in a while, as far as can be told? `status`: of the answer, if there was one."""
    if code_of(error):
        return not is_decided(error)
    # A problem without a type of ACME may be of something between.
    if isinstance(error, messages.Error) or _answer(error) is not None:
        return status >= 500 or status == 429
    return isinstance(error, requests.exceptions.RequestException | errors.TimeoutError)


def told(error: Exception) -> str:
    """A failure in one line for the administrator."""
    response = _answer(error)
    match error:
        case CannotProve():
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
            words = "the authority knows no account of this server's key"
        case _ if response is not None:
            words = f"the authority answers with status {response.status_code} {response.reason or ''}, and not why"
        case errors.ConflictError():
            words = "the authority says that it conflicts with what it has (status 409)"
        case errors.ClientError() if type(error) is errors.ClientError:
            words = f"the authority's answer is not as it should be: {error}"
        case _:
            words = f"the authority's answer is not understood: {type(error).__name__}: {error}"
    return " ".join(words.split())


def _problem(error: messages.Error) -> str:
    """A problem document (RFC 7807) with its subproblems (RFC 8555 6.7.1)."""
    parts = [_one(error)]
    for each in (error.subproblems or ())[:_MOST]:
        name = f"{each.identifier.value}: " if each.identifier is not None else ""
        parts.append(f"{name}{_one(each)}")
    return "; ".join(parts)


def _one(error: messages.Error) -> str:
    what = error.detail or error.title or error.description or "it does not say why"
    code = code_of(error)
    return f"{code}: {what}" if code else str(what)


def _unreached(error: requests.exceptions.RequestException) -> str:
    """What keeps us from an address, without the libraries' words of it."""
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
    """The first cause first."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and len(found) < 20:
        found.append(cause)
    return reversed(found)


def _answer(error: Exception) -> requests.Response | None:
    """An answer without a problem document, of which the library says no more than that."""
    if not isinstance(error, errors.ClientError) or not error.args:
        return None
    first = error.args[0][0] if isinstance(error.args[0], tuple) and error.args[0] else error.args[0]
    return first if isinstance(first, requests.Response) else None
