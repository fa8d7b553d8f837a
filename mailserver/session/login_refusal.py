"""The refusal of a login, for all protocols: its line in the log, its trace, and the id that its sentence ends in."""

from __future__ import annotations

from mailserver.auth.interfaces import Authenticator, LoginContext
from mailserver.errors import MailError
from mailserver.session.channel import Channel


def refuse_login(
    channel: Channel,
    authenticator: Authenticator,
    context: LoginContext,
    name: str,
    error: MailError,
    *,
    method: str,
    **fields: object,
) -> None:
    """Log and record a refused login. The protocol then writes `error.sentence`, which ends in the id.

    `name` as typed, empty where the client has sent none. `context`: that of the attempt, which has its trace. `fields`: more
    of the log line.
    """
    ref = authenticator.refused(error, name, method, context)
    who = {"user": authenticator.shown_name(name, context)} if name else {}
    channel.log("login-failed", **fields, **who, method=method, reason=error.reason, ref=ref)
