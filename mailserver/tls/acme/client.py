"""`python -m mailserver.tls.acme.client`: run one job at an ACME authority (RFC 8555) as the service's user.

The job is one line of JSON on standard input, the result one line on standard output. This process alone reads what the
authority sends, and it has no more rights than the workers. A certificate's private key never comes here, only the signed
request. The account's key does; other processes of the same user cannot read this one's memory.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

from mailserver.tls.acme import issuance, requests
from mailserver.tls.acme.faults import code_of, error_text, is_decided
from mailserver.tls.acme.network import AcmeServer, seconds_of

JOBS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "obtain": issuance.obtain,
    "renewal-infos": requests.renewal_infos,
    "account": requests.account,
    "deactivate": requests.deactivate,
    "roll-over": requests.roll_over,
    "revoke": requests.revoke,
    "revocation-terms": requests.revocation_terms,
    "revoke-signed": requests.revoke_signed,
}
_MEMORY: Final = 1 << 30
_PR_SET_DUMPABLE: Final = 4


def do(job: Mapping[str, Any], send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run a job and return its result.

    A failure is `{"error": text, "code": text, "retry_after": seconds, "decided": bool}`. `code` is the type of the
    authority's problem, or "". `decided` means that the authority has decided, so that repeating the order is useless.
    """
    authority = None
    try:
        authority = AcmeServer(job)
        return JOBS[job["do"]](authority, job, send)
    except Exception as error:
        retry_after = 0 if authority is None else seconds_of(authority.network.retry_after)
        return {
            "error": error_text(error),
            "code": code_of(error),
            "retry_after": retry_after,
            "decided": is_decided(error),
        }


def end_with(listener: int) -> None:
    """Kill this process and its children once nobody reads `listener`: the parent was killed.

    The order then belongs to another process, whose challenge response this one must not remove.
    """

    def wait() -> None:
        waiting = select.poll()
        waiting.register(listener, 0)
        waiting.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Run the job; output of the libraries goes to standard error."""
    # Other processes of the same user could otherwise read the account's key from this process.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    answers: BinaryIO
    with open(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        end_with(answers.fileno())

        def send(row: dict[str, Any]) -> None:
            answers.write(json.dumps(row).encode() + b"\n")
            answers.flush()

        send(do(json.load(sys.stdin.buffer), send))


if __name__ == "__main__":
    main()
