"""Mail domains, and the certificates under which their hosts are seen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs
from attrs import frozen

from mailserver.config.kinds import ClientCertificates, ClientUser, Count, HostName, HostPattern, TlsVersion
from mailserver.config.model import certificate_keys
from mailserver.config.model.keys import position, setting
from mailserver.config.model.quota import DomainQuota


@frozen
class Site:
    """[[domain.site]]"""

    hosts: tuple[HostPattern, ...] = setting(
        "Host names of the domain with a certificate of their own; *.name covers one label.",
        example=["autoconfig.example.org"],
    )
    certificate: Path | None = certificate_keys.certificate("autoconfig.example.org")
    key: Path | None = certificate_keys.private_key("autoconfig.example.org")
    second_certificate: Path | None = certificate_keys.second_certificate("autoconfig.example.org")
    second_key: Path | None = certificate_keys.second_key("autoconfig.example.org")
    key_password_file: Path | None = certificate_keys.key_password_file()
    key_password_command: tuple[str, ...] = certificate_keys.key_password_command()
    acme: bool = certificate_keys.acme()
    number: int = position()


@frozen
class MtaSts:
    """[domain.mta_sts]"""

    mode: Literal["enforce", "testing", "none"] = setting(
        "What senders do if no host of the policy can be reached over TLS with a valid certificate: "
        "do not send, or only report it. none withdraws the policy.",
        default="testing",
    )
    max_age: Count = setting("Seconds for which senders keep the policy; at most 31557600.", default=Count(604800))


@frozen
class Domain:
    """[[domain]]"""

    name: HostName = setting("Mail domain: the part of addresses after the @.", example="example.org")
    hosts: tuple[HostPattern, ...] = setting(
        "Host names that clients of this domain connect to; *.name covers one label.", example=["mail.example.org"]
    )
    certificate: Path | None = certificate_keys.certificate("mail.example.org")
    key: Path | None = certificate_keys.private_key("mail.example.org")
    second_certificate: Path | None = certificate_keys.second_certificate("mail.example.org")
    second_key: Path | None = certificate_keys.second_key("mail.example.org")
    key_password_file: Path | None = certificate_keys.key_password_file()
    key_password_command: tuple[str, ...] = certificate_keys.key_password_command()
    minimum_version: TlsVersion | None = setting(
        "Oldest TLS version accepted for these hosts, at least that of [tls]. When absent, that of [tls].",
        default=None,
        example="1.3",
    )
    ciphers: str | None = setting(
        "TLS 1.2 cipher suites for these hosts. When absent, those of [tls].",
        default=None,
        example="ECDHE+AESGCM:!aNULL",
    )
    client_certificates: ClientCertificates = setting(
        "Client certificates: not requested, requested (an unverified one counts as none), or required.",
        default="none",
    )
    client_ca: Path | None = setting(
        "PEM file of the authorities that sign client certificates; each is trusted by itself.",
        default=None,
        example="/etc/mailserver/clients-ca.pem",
    )
    client_crl: Path | None = setting(
        "File of revocation lists, one of each authority in PEM, or a single one in DER. A new file takes effect within seconds.",
        default=None,
        example="/etc/mailserver/clients.crl",
    )
    client_user: ClientUser = setting(
        "Field of a client certificate with the user name: the subject alternative name rfc822Name, or an "
        'attribute of the subject. A required certificate must name the user that logs in, unless this is "any".',
        default="rfc822Name",
    )
    acme: bool = certificate_keys.acme()
    mx: tuple[HostName, ...] = setting(
        "Hosts that receive the domain's mail, the preferred one first; for `mailserver dns` and the MTA-STS policy.",
        default=(),
        example=["mx.example.org"],
    )
    sites: tuple[Site, ...] = ()
    """[[domain.site]]"""
    mta_sts: MtaSts | None = setting("The MTA-STS policy (RFC 8461). When absent, there is none.", default=None)
    dkim: Literal["sign", "off"] = setting(
        "Whether mail that users of the domain submit gets DKIM signatures, once `mailserver dkim create` has made keys.",
        default="sign",
    )
    quota: DomainQuota | None = setting("Limits of the domain's accounts. When absent, those of [quota].", default=None)
    number: int = position()
    site: int = position()
    """For a Domain that represents a [[domain.site]]: the number of that table; else 0."""

    @property
    def place(self) -> str:
        """The table in a Problem: "[domain 2]"."""
        return f"[domain {self.number}.site {self.site}]" if self.site else f"[domain {self.number}]"

    @property
    def with_sites(self) -> tuple[Domain, ...]:
        """The domain itself, and a Domain of the same name for each site."""
        return (self, *(self._of_site(site) for site in self.sites))

    def _of_site(self, site: Site) -> Domain:
        said = {each.name: getattr(site, each.name) for each in attrs.fields(Site) if each.name != "number"}
        return Domain(self.name, number=self.number, site=site.number, **said)
