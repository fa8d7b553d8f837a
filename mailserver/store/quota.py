"""Quota arithmetic: whether more fits, and when a user is to be warned. The stores keep the usage."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from attrs import frozen

from mailserver.errors import OverQuota
from mailserver.types import UNLIMITED, Quota, Usage

RELIEF: Final = 95
"""Percent below which a user may be warned again that the quota is used up: until then small messages may still fit."""


@frozen
class QuotaWarning:
    """The usage of an account has reached a threshold, below which it was before."""

    threshold: int
    """Percent of a limit; 100 also if a message has been refused."""
    usage: Usage
    quota: Quota


def check(quota: Quota, usage: Usage, messages: int, octets: int) -> None:
    """Raise OverQuota if so many more do not fit. Above the quota nothing fits, but none is no addition.

    A replacement is none or fewer messages, with the octets that it adds to those of the old message.
    """
    if messages <= 0 and octets <= 0:
        return
    if messages > 0 and quota.messages is not None and usage.messages + messages > quota.messages:
        raise OverQuota
    if quota.storage is not None and usage.storage + octets > quota.storage:
        raise OverQuota


def percent_used(quota: Quota, usage: Usage) -> int:
    """Return the percentage of the limit of messages or octets that is closer, rounded down."""
    limits = ((quota.storage, usage.storage), (quota.messages, usage.messages))
    return max((100 * used // max(limit, 1) for limit, used in limits if limit not in {None, UNLIMITED}), default=0)


def warned_level(
    warned: int, thresholds: Collection[int], before: int, after: int, *, refused: bool
) -> tuple[int, bool]:  # fmt: skip
    """Return the highest threshold that the user is warned of after a change, and whether that warning is due now.

    `warned`: the highest one before. `before` and `after`: percentages around the change. `refused`: it did not fit.
    Thresholds above `before` are forgotten, so that a user who has made room is warned again.
    """
    if warned < 100 or before < RELIEF:
        warned = min(warned, _level(thresholds, before))
    level = _level(thresholds, max(after, 100) if refused else after)
    return max(warned, level), level > warned


def _level(thresholds: Collection[int], percent: int) -> int:
    return max((each for each in thresholds if each <= percent), default=0)
