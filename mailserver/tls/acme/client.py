"""`python -m mailserver.tls.acme.client`: one job at an ACME authority (RFC 8555), by the service's user.

A job comes in on standard input and what comes of it goes out on standard output, JSON both, a line each: what the
authority sends is read here alone, with no more rights than the workers have. A certificate's key never comes here, only
the request that it signed. The account's key does: no other process of the user can read this one's memory.
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
from mailserver.tls.acme.faults import code_of, is_decided, told
from mailserver.tls.acme.network import Authority, seconds_of

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


def do(job: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What a job ends with.

    Where it fails, `{"error": text, "code": text, "retry_after": seconds, "decided": bool}`; decided: by the authority, so
    that the same order is of no use any more; code: the type of its problem, or "".
    """
    authority = None
    try:
        authority = Authority(job)
        return JOBS[job["do"]](authority, job, tell)
    except Exception as error:
        retry_after = 0 if authority is None else seconds_of(authority.network.retry_after)
        return {
            "error": told(error),
            "code": code_of(error),
            "retry_after": retry_after,
            "decided": is_decided(error),
        }


def end_with(listener: int) -> None:
    """End this process, and what it has started, once nobody reads `listener` any more: who asked was killed.

    The order is another process's then, whose proof this one must not take away.
    """

    def wait() -> None:
        waiting = select.poll()
        waiting.register(listener, 0)
        waiting.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Do the job; whatever the libraries print goes to standard error."""
    # Others of the same user could otherwise read the account's key out of this process.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    answers: BinaryIO
    with open(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        end_with(answers.fileno())

        def tell(row: dict[str, Any]) -> None:
            answers.write(json.dumps(row).encode() + b"\n")
            answers.flush()

        tell(do(json.load(sys.stdin.buffer), tell))


if __name__ == "__main__":
    main()
