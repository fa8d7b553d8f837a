"""The files of `mailserver demo`: a small but real deployment in one directory.

Each piece is made once and kept: an existing one is not touched, so the mail of the last run remains. The
configuration is written last; a later run completes one that was interrupted.
"""

from __future__ import annotations

import datetime as dt
import os
import pwd
import secrets
import shutil
import socket
import string
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import tomlkit
from attrs import frozen

from mailserver.cli import demonstration_accounts
from mailserver.cli.account_stores import AccountStore
from mailserver.cli.samples import now, sample_messages
from mailserver.cli.users_file import UsersFile
from mailserver.config.kinds import PORTS
from mailserver.directory.model import AddressKind, StoredAddress, Target
from mailserver.dkim import key_file
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.system.atomic_file import replace_file, sync_directory
from mailserver.tls.ca import private_ca
from mailserver.tls.ca.authority import AUTHORITY_DAYS, DAYS, certificate_pem, key_pem, make_key

OFFSETS: Mapping[str, int] = {**PORTS, "metrics": 90}
"""Listener -> offset of its port from the base. "metrics" is a second listener of protocol http."""

_SOCKETS: Mapping[str, str] = {
    "auth": "Postfix, Exim and others ask here for logins (docs/authentication.md).",
    "lookup": "Postfix asks here for domains, addresses and senders (docs/accounts.md).",
}
"""Protocol -> purpose of the sockets for other servers."""
_LONGEST_PATH: Final = 107
"""Octets of a Unix socket's path (unix(7))."""

USERS: Mapping[str, Sequence[str]] = {
    "example.test": ("anna", "ben", "carla"),
    "example.org": ("anna", "david", "emma"),
}
"""Domain -> its users. The same local part in both shows that they are separate."""

ADDRESSES: Sequence[StoredAddress] = (
    StoredAddress("info@example.test", AddressKind.ALIAS, (Target("anna@example.test"), Target("ben@example.test"))),
    StoredAddress(
        "team@example.test",
        AddressKind.GROUP,
        tuple(Target(f"{local}@example.test", may_send=False) for local in USERS["example.test"]),
    ),
    StoredAddress("office@example.org", AddressKind.ALIAS, (Target("emma@example.org"),)),
)
"""Addresses of a new directory that are no users."""

_BACKENDS: Mapping[str, str] = {
    "directory": "Users, aliases and groups; `mailserver user`, `alias` and `group` change them.",
    "file": "Dovecot's passwd-file format; `mailserver user` edits it, and it is reread when it changes.",
}
"""The comment of each kind of back end."""


@frozen
class Demonstration:
    """The paths of a demonstration."""

    directory: Path
    port_base: int

    @property
    def configuration(self) -> Path:
        """mailserver.toml."""
        return self.directory / "mailserver.toml"

    @property
    def authority(self) -> Path:
        """Certificate of the private CA, a copy for mail programs."""
        return self.directory / "ca.pem"

    @property
    def private_ca(self) -> Path:
        """Directory of that CA for `mailserver ca`, with its key."""
        return self.directory / "state" / "ca"

    @property
    def accounts(self) -> Path:
        """accounts.txt: `user:password` a line."""
        return self.directory / "accounts.txt"

    @property
    def users(self) -> Path:
        """The users file of a demonstration that has one instead of a directory."""
        return self.directory / "users"

    @property
    def directory_file(self) -> Path:
        """The directory of accounts."""
        return self.directory / "accounts" / "directory.db"

    @property
    def app_password(self) -> Path:
        """app-password.txt: `user:password`, made with a new directory."""
        return self.directory / "app-password.txt"

    def certificate(self, host: str) -> tuple[Path, Path]:
        """Certificate and key of a host."""
        stem = self.directory / "certs" / host
        return stem.with_name(f"{stem.name}.pem"), stem.with_name(f"{stem.name}.key")


def make(demonstration: Demonstration, extra_users: int, *, users_file: bool = False) -> dict[str, str]:
    """Make the missing files. Return the accounts, name -> password, in the file's order.

    `users_file`: a new demonstration gets a users file instead of a directory. Raises: OSError, CaFault,
    DirectoryUnavailable, Refused.
    """
    directory = demonstration.directory
    for each in (directory, *(directory / name for name in ("certs", "mail", "run", "state"))):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_certificates(demonstration)
    _make_dkim_keys(demonstration)
    accounts = _make_accounts(demonstration, extra_users)
    store = store_of(demonstration, users_file=users_file)
    is_new = demonstration_accounts.make_users(store, accounts, ADDRESSES)
    if is_new:
        owner = next(iter(named_users()))
        made = demonstration_accounts.make_app_password(store, owner)
        replace_file(demonstration.app_password, f"{owner}:{made}\n".encode("ascii"))
    for name in named_users():
        _make_maildir(directory / "mail", name)
    if demonstration.configuration.exists():
        _move_ports(demonstration)
    else:
        text = _configuration_text(demonstration, store, with_ipv6=_has_ipv6())
        replace_file(demonstration.configuration, text.encode("utf-8"), mode=0o644)
    return accounts


def hosts_of(domain: str) -> list[str]:
    """Names of a domain's certificate. The first domain's is the default, and covers localhost, too."""
    first = next(iter(USERS))
    return [f"mail.{domain}", *(["localhost", "127.0.0.1", "::1"] if domain == first else [])]


def sites_of(domain: str) -> list[str]:
    """Names of web pages of a domain, each with a certificate of its own."""
    return [f"{label}.{domain}" for label in ("autoconfig", "autodiscover", "mta-sts")]


def named_users() -> Iterator[str]:
    """Users of USERS, with their domains."""
    for domain, local_parts in USERS.items():
        for local in local_parts:
            yield f"{local}@{domain}"


def store_of(demonstration: Demonstration, *, users_file: bool = False) -> AccountStore:
    """The accounts of a demonstration. `users_file`: those of a new one are in a users file."""
    return demonstration_accounts.store_of(
        demonstration.configuration, demonstration.users, demonstration.directory_file, users_file=users_file
    )


def _make_certificates(demonstration: Demonstration) -> None:
    place = demonstration.private_ca
    if not (place / private_ca.CERTIFICATE).exists():
        _make_authority(demonstration)
    authority = private_ca.open_ca(place)
    signer = authority.unlock(None)
    if not demonstration.authority.exists():
        replace_file(demonstration.authority, certificate_pem(authority.certificate), mode=0o644)
    names = {f"mail.{domain}": hosts_of(domain) for domain in USERS}
    names |= {site: [site] for domain in USERS for site in sites_of(domain)}
    for host, covered in names.items():
        certificate, key = demonstration.certificate(host)
        if not (certificate.exists() and key.exists()):
            private, present = make_key(), dt.datetime.now(dt.UTC)
            made = authority.sign(signer, private.public_key(), covered, "server", days=DAYS, now=present)
            replace_file(key, key_pem(private))
            replace_file(certificate, certificate_pem(made), mode=0o644)


def _make_dkim_keys(demonstration: Demonstration) -> None:
    """Make keys that sign mail of both domains; nobody finds their records, as the domains are not in DNS."""
    state, present = demonstration.directory / "state", time.time()
    for domain in USERS:
        if not key_file.path_of(state, domain).exists():
            keys = key_file.DomainKeys(domain, ()).with_set("demonstration", present).with_waiting_signing(present)
            with key_file.changing(state):
                key_file.write(state, keys)


def _make_authority(demonstration: Demonstration) -> None:
    place, old_key = demonstration.private_ca, demonstration.authority.with_suffix(".key")
    if demonstration.authority.exists() and old_key.exists():
        # Made by an earlier version; clients trust this authority.
        place.mkdir(mode=0o755)
        replace_file(place / private_ca.KEY, old_key.read_bytes())
        replace_file(place / private_ca.CERTIFICATE, demonstration.authority.read_bytes(), mode=0o644)
        old_key.unlink()
    private_ca.create(
        place,
        "Demonstration of a mail server",
        key_type="p256",
        days=AUTHORITY_DAYS,
        only=(),
        passphrase=None,
        now=dt.datetime.now(dt.UTC),
    )


def _make_accounts(demonstration: Demonstration, extra_users: int) -> dict[str, str]:
    """Names and passwords in clear text, as the demonstration prints them."""
    accounts: dict[str, str] = {}
    if demonstration.accounts.exists():
        for line in demonstration.accounts.read_text("utf-8").splitlines():
            name, _, password = line.partition(":")
            accounts[name] = password
    wanted = [*named_users(), *(f"u{number:03}@{next(iter(USERS))}" for number in range(extra_users))]
    missing = [name for name in wanted if name not in accounts]
    if missing:
        accounts |= {name: _password() for name in missing}
        text = "".join(f"{name}:{password}\n" for name, password in accounts.items())
        replace_file(demonstration.accounts, text.encode("utf-8"))
    return accounts


def _password() -> str:
    """A password of letters and digits (95 bits): a double click selects it, and it needs no quoting."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(16))


def _make_maildir(root: Path, name: str) -> None:
    """Make an INBOX atomically, with the sample messages in new/."""
    local, _, domain = name.partition("@")
    place = root / domain / local
    if place.exists():
        return
    making = root / domain / f"{local}.making"
    shutil.rmtree(making, ignore_errors=True)
    maildir = making / "Maildir"
    # As the server makes a new account, with its special-use folders.
    store = MaildirStore(root, summarise, location="{root}/{domain}/{local}.making/Maildir")
    store.account(name).close()
    present = now()
    for number, sample in enumerate(sample_messages(name, domain, present), 1):
        came = int((present - sample.age).timestamp())
        file = maildir / "new" / f"{came}.M{number:06}P{os.getpid()}Q{number}.demonstration"
        file.write_bytes(sample.data)
        # The file's time is the internal date.
        os.utime(file, (came, came))
    os.rename(making, place)
    sync_directory(place.parent)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _caller() -> str:
    """The caller's user name; empty if the user id has none, as in containers."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _protocol(name: str) -> str:
    """The protocol of a listener in OFFSETS."""
    return "http" if name == "metrics" else name


def _move_ports(demonstration: Demonstration) -> None:
    """Change the ports of the listeners to the current base; keep the rest of the file."""
    text = demonstration.configuration.read_text("utf-8")
    document = tomlkit.parse(text)
    offsets: dict[str, list[int]] = {}
    for name, offset in OFFSETS.items():
        offsets.setdefault(_protocol(name), []).append(offset)
    for listener in document.get("listener", ()):
        of_protocol = offsets.get(str(listener.get("protocol")))
        if of_protocol and "port" in listener:
            listener["port"] = demonstration.port_base + of_protocol.pop(0)
    changed = tomlkit.dumps(document)
    if changed != text:
        replace_file(demonstration.configuration, changed.encode("utf-8"))


def _configuration_text(demonstration: Demonstration, store: AccountStore, *, with_ipv6: bool) -> str:
    def quoted(value: object) -> str:
        return tomlkit.item(str(value)).as_string()

    directory = demonstration.directory
    first = next(iter(USERS))
    kind = "file" if isinstance(store, UsersFile) else "directory"
    user = _caller()
    addresses = '["127.0.0.1", "::1"]' if with_ipv6 else '["127.0.0.1"]'
    parts = [
        f"""# A demonstration: two domains, each under its own certificate, on one machine.
# Made once by `mailserver demo`. Your changes stay, except the listeners' ports: another --port-base
# (PORT_BASE of make) changes the port of every listener in this file.

[server]
hostname = "mail.{first}"
# All mail belongs to this system user. A real server has its own user.
user = {quoted(user)}
runtime_dir = {quoted(directory / "run")}
state_dir = {quoted(directory / "state")}

[mail]
root = {quoted(directory / "mail")}
# The user that receives mail to postmaster of both domains.
postmaster = {quoted(f"{USERS[first][0]}@{first}")}

[auth]
# {_BACKENDS[kind]}
backends = [{quoted(f"{kind}:{store.path}")}]
# A name without a domain belongs to the domain of the host name in SNI, else to this one.
default_domain = "{first}"

[tls]
# Served to clients without SNI, or with an unknown name.
default = "mail.{first}"
# The HTTP listeners offer it at /ca, with instructions to import it.
private_ca = {quoted(demonstration.private_ca / private_ca.CERTIFICATE)}
"""
    ]
    for domain in USERS:
        certificate, key = demonstration.certificate(f"mail.{domain}")
        hosts = ", ".join(quoted(host) for host in hosts_of(domain) if host[0].isalpha())
        parts.append(f"""
[[domain]]
name = "{domain}"
hosts = [{hosts}]
certificate = {quoted(certificate)}
key = {quoted(key)}
mx = ["mail.{domain}"]
""")
        for site in sites_of(domain):
            certificate, key = demonstration.certificate(site)
            parts.append(f"""
[[domain.site]]
hosts = ["{site}"]
certificate = {quoted(certificate)}
key = {quoted(key)}
""")
        parts.append("""
[domain.mta_sts]
mode = "testing"
""")
    for name, offset in OFFSETS.items():
        parts.append(f"""
[[listener]]
protocol = "{_protocol(name)}"
port = {demonstration.port_base + offset}
addresses = {addresses}
""")
    parts += [_socket_text(protocol, path, what) for protocol, path, what in _sockets(directory)]
    return "".join(parts)


def _sockets(directory: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield protocol, path and purpose of the sockets for other servers. A system takes no path of over 107 octets."""
    for protocol, what in _SOCKETS.items():
        path = directory / "run" / protocol
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            yield protocol, path, what


def _socket_text(protocol: str, path: Path, what: str) -> str:
    return f"""
# {what}
[[listener]]
protocol = "{protocol}"
socket = {tomlkit.item(str(path)).as_string()}
"""
