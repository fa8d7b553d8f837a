"""The size that MAIL announces, compared with the quota of a recipient here before the message comes (RFC 1870 6.2).

The delivery judges again: the size may be wrong, and other mail may come before. A recipient with several users is judged by
the delivery alone, as RCPT would open all their accounts.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.auth.interfaces import User
from mailserver.errors import OverQuota
from mailserver.session.channel import Channel
from mailserver.smtp.session import Services
from mailserver.types import UNLIMITED


async def check_announced_size(
    channel: Channel, services: Services, users: Sequence[tuple[User, str]], size: object
) -> None:
    """Judge RCPT. `size`: octets that MAIL announced, or None. Raises: OverQuota, StoreUnavailable."""
    if not isinstance(size, int) or len(users) != 1:
        return
    user = users[0][0]
    quota = services.quotas.of_user(user)
    if {quota.storage, quota.messages} <= {None, UNLIMITED}:
        return
    live = await services.accounts.open(user.name, user.home, quota)
    try:
        await live.run(lambda: live.account.check_quota(1, size))
    except OverQuota as error:
        channel.log("quota-refused", user=user.name, command="RCPT")
        raise services.quotas.refusal(error) from error
    finally:
        live.report_quota()
        services.accounts.release(live)
