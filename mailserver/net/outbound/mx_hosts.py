"""The places that take the mail of a way: the hop of its route, or the hosts of the recipient's domain."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from ipaddress import ip_network

from mailserver.config.model.outbound import Delivery
from mailserver.dns.mail_exchange import Address, MailHost, NoMailDomain, NoRoute, NullMX, find_mail_hosts, unmapped
from mailserver.dns.query import BadName, DNSFailure, MailExchange
from mailserver.dns.resolver import Resolver
from mailserver.net.outbound.place import Place, place_of
from mailserver.queue.outcome import Outcome, loops_back, no_such_domain, null_mx, refused_here
from mailserver.queue.routing import Way
from mailserver.queue.sanitize import printable


class MXHosts:
    """Finds places by the configuration and the DNS."""

    def __init__(
        self,
        resolver: Resolver,
        delivery: Delivery,
        hostname: str,
        is_own: Callable[[Address, int], bool],
        *,
        shuffle: Callable[[list[MailExchange]], None] = random.shuffle,
    ) -> None:
        """`hostname` is our own name in EHLO; `is_own` says whether this server listens at an address and port."""
        self._resolver = resolver
        self._delivery = delivery
        self._hostname = hostname.lower().rstrip(".")
        self._is_own = is_own
        self._networks = [ip_network(each) for each in delivery.refuse_networks]
        self._shuffle = shuffle

    async def find(self, way: Way) -> Sequence[Place] | Outcome:
        """Return the places in the order to try them, at least one; or why there is none, for good or for now."""
        if way.route is not None:
            return [place_of(way.route)]
        domain = way.domain
        try:
            found = await find_mail_hosts(
                self._resolver,
                domain,
                ipv6=self._delivery.ipv6,
                is_refused=self._is_refused,
                shuffle=self._shuffle,
            )
        except NullMX:
            return null_mx(domain)
        except (NoMailDomain, BadName):
            return no_such_domain(domain)
        except NoRoute as error:
            return refused_here(error.smtp_reply[1], f"{error.reason}: {domain}")
        except DNSFailure as error:
            return Outcome("hop_failed", error.smtp_reply[1], printable(f"{error.reason}: {domain}"), stage="connect")
        hosts = self._before_ours(found)
        if not hosts:
            return loops_back(domain)
        return [Place(str(each.address), self._delivery.port, each.host, way.tls) for each in hosts]

    def _is_refused(self, address: Address) -> bool:
        # Our own address is seen in `_before_ours`, as a loop: it is no address that the domain should not have.
        return not self._is_own(address, self._delivery.port) and any(address in each for each in self._networks)

    def _before_ours(self, hosts: Sequence[MailHost]) -> list[MailHost]:
        """The hosts that are preferred to ourselves (RFC 5321 5.1): mail that goes to others would come back."""
        port = self._delivery.port
        ours = [each for each in hosts if each.host == self._hostname or self._is_own(unmapped(each.address), port)]
        if not ours:
            return list(hosts)
        best = min(each.preference for each in ours)
        return [each for each in hosts if each.preference < best]
