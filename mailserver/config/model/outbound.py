"""Tables of mail on its way out: routes to hops, and the delivery to the hosts of domains.

No file has these tables yet: `whole.Config` takes them up with the process that delivers.
"""

from __future__ import annotations

from typing import Final, Literal

from attrs import frozen

from mailserver.config.kinds import HostName, Network, Port
from mailserver.config.model.keys import setting
from mailserver.config.model.protocols import Relay

TLSPolicy = Literal["opportunistic", "required", "verified"]
"""TLS to the hosts of a domain. opportunistic: where it works (RFC 7435); required: with any certificate; verified: with a
certificate that is valid for the host's name."""

REFUSED_NETWORKS: Final = (
    *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "::1/128", "fe80::/10", "ff00::/8"),
)
"""Unspecified, loopback, link-local, multicast and reserved addresses (RFC 6890): no host of another domain has one."""


@frozen
class Route(Relay):
    """[[route]], with the keys of [submission.relay]"""

    sender_domains: tuple[HostName, ...] = setting(
        "Domains of senders whose mail takes this route. When empty, any.", default=(), example=["example.org"]
    )
    recipient_domains: tuple[HostName, ...] = setting(
        "Domains of recipients whose mail takes this route. When empty, any.", default=(), example=["example.net"]
    )


@frozen
class DeliveryTLS:
    """[[delivery.tls]]"""

    domains: tuple[HostName, ...] = setting("Domains of recipients.", example=["example.net"])
    policy: TLSPolicy = setting(
        "TLS to the hosts of these domains. opportunistic: where it works; required: always, with any certificate; verified: "
        "always, with a certificate that is valid for the host's name in the MX record.",
        default="required",
    )


@frozen
class Delivery:
    """[delivery]"""

    mx: bool = setting("Deliver to the hosts of a recipient's domain where no route fits.", default=False)
    port: Port = setting("The port of these hosts.", default=25)
    ipv6: bool = setting("Use IPv6 addresses.", default=True)
    refuse_networks: tuple[Network, ...] = setting(
        "Networks that no mail is delivered to, whatever the DNS says. The hosts of routes may be there.",
        default=tuple(Network(each) for each in REFUSED_NETWORKS),
    )
    tls: tuple[DeliveryTLS, ...] = ()
    """[[delivery.tls]]"""
