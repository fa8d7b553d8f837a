"""The quota of each user: its own limits, then those of its domain, then those of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import Factory, frozen

from mailserver.auth.interfaces import Authenticator, User
from mailserver.config.model import Config, DomainQuota, Quotas
from mailserver.errors import AuthUnavailable, MailError, OverQuota, OverQuotaForGood
from mailserver.types import UNLIMITED, Quota


@frozen
class UserQuotas:
    """Limits of users by the configuration and the source of users."""

    default: Quota = Quota()
    domains: Mapping[str, Quota] = Factory(dict)
    """By domain, in lower case."""
    default_domain: str = ""
    """The domain of names without one."""
    when_full: Literal["temporary", "permanent"] = "temporary"

    @classmethod
    def of_config(cls, config: Config) -> UserQuotas:
        """Make them of [quota] and each [domain.quota]."""
        domains: dict[str, Quota] = {each.name: _quota(each.quota) for each in config.domains if each.quota is not None}
        return cls(_quota(config.quota), domains, config.auth.default_domain, config.quota.when_full)

    def of_user(self, user: User) -> Quota:
        """Return the limits of a user that was just looked up."""
        return user.limits.quota.or_else(self._of_domain(user.name))

    async def of_name(self, name: str, authenticator: Authenticator, known: Quota) -> Quota:
        """Return the present limits of a user by its full name; the known ones if the user cannot be looked up now."""
        try:
            user = await authenticator.find(name)
        except AuthUnavailable:
            return known
        return self._of_domain(name) if user is None else self.of_user(user)

    def refusal(self, error: MailError) -> MailError:
        """Return the failure that a sender of mail gets for a failure of a delivery."""
        if isinstance(error, OverQuota) and self.when_full == "permanent":
            return OverQuotaForGood(error.sentence)
        return error

    def _of_domain(self, name: str) -> Quota:
        own = self.domains.get(name.rpartition("@")[2] if "@" in name else self.default_domain)
        return self.default if own is None else own.or_else(self.default)


def _quota(table: Quotas | DomainQuota) -> Quota:
    limits = table.storage, table.messages, table.mailboxes
    return Quota(*(UNLIMITED if limit == 0 else limit for limit in limits))
