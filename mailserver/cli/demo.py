"""`mailserver demo`: makes a demonstration, and prints how to use it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import click
import tomlkit

from mailserver.auth.schemes import schemes
from mailserver.cli.account_stores import DirectoryStore
from mailserver.cli.ca_options import expected_errors
from mailserver.cli.demonstration import (
    ADDRESSES,
    OFFSETS,
    USERS,
    Demonstration,
    make,
    named_users,
    sites_of,
    store_of,
)
from mailserver.directory import addresses
from mailserver.directory.model import AddressKind, DirectoryUnavailable, Refused

CHANGED = "(changed since)"
"""Printed instead of a password that differs from accounts.txt."""
MOST_ADDRESSES = 10
"""Aliases, and targets of one, that are printed."""


def describe(demonstration: Demonstration, accounts: Mapping[str, str]) -> str:
    """Describe how to connect: client settings of each domain, commands to copy, and the administrator's command."""
    base = demonstration.port_base
    ports = {protocol: base + offset for protocol, offset in OFFSETS.items()}
    lines = [
        f"Everything is in {demonstration.directory}; the mail is kept between runs.",
        f"Trust this authority in your mail program: {demonstration.authority}",
        "If a program must resolve the host names, add this line to /etc/hosts:",
        f"127.0.0.1 {' '.join(host for domain in USERS for host in (f'mail.{domain}', *sites_of(domain)))}",
    ]
    others = _addresses(demonstration)
    of_first = others.get(next(iter(USERS)), [])
    for domain, local_parts in USERS.items():
        users = [f"{each}@{domain}" for each in local_parts]
        lines += _settings(domain, f"mail.{domain}", ports, users[:1])
        lines += [f"  User        {name}  {accounts[name]}" for name in users]
        lines += others.pop(domain, [])
    for domain, host in _later_domains(demonstration):
        users = [name for name in _users(demonstration) if name.endswith(f"@{domain}")]
        lines += _settings(domain, host, ports, users[:1])
        lines += [f"  User        {name}" for name in users] or [f"  User        none yet: user add NAME@{domain}"]
        lines += others.pop(domain, [])
    named = list(named_users())
    if len(accounts) > len(named):
        lines += ["", f"{len(accounts) - len(named)} more accounts are in {demonstration.accounts}"]
    first, second = list(USERS)[:2]
    reader, writer = f"{USERS[first][0]}@{first}", f"{USERS[second][1]}@{second}"
    authority = shlex.quote(str(demonstration.authority))
    send = (
        f"swaks --server 127.0.0.1 --port {ports['submission']} --tls --tls-sni mail.{second} --tls-verify"
        f" --tls-verify-target mail.{second} --tls-ca-path {authority} --auth PLAIN --auth-user {writer}"
        f" --auth-password='{accounts[writer]}' --from {writer}"
    )
    # The alias and the group, unless somebody removed them.
    shared = [each.name for each in ADDRESSES if any(each.name in line.split() for line in of_first)][:2]
    lines += [
        "",
        "Try it (copy these; each is one line):",
        "",
        (
            f"openssl s_client -connect 127.0.0.1:{ports['imaps']} -servername mail.{second} -CAfile {authority}"
            f" -verify_hostname mail.{second} -verify_return_error -brief </dev/null"
        ),
        "",
        (
            f"curl -sS --cacert {authority} --resolve mail.{first}:{ports['imaps']}:127.0.0.1"
            f" --user '{reader}:{accounts[reader]}' 'imaps://mail.{first}:{ports['imaps']}/INBOX;MAILINDEX=1'"
        ),
        "",
        f"{send} --to {reader} --header 'Subject: Hello from {second}'",
        "",
        *_with_app_password(demonstration, first, ports["imaps"]),
        *([f"{send} --to {','.join(shared)} --header 'Subject: To all of you'", ""] if shared else []),
        f"Configuration for Thunderbird: https://autoconfig.{first}:{ports['https']}/mail/config-v1.1.xml",
        f"Instructions to trust the authority in mail programs: http://127.0.0.1:{ports['http']}/ca",
        f"Metrics for Prometheus: http://127.0.0.1:{ports['metrics']}/metrics (and /health)",
        "",
        "The administrator's command (try also `who`, `user list`, `alias list` and `show` instead of `status`):",
        "",
        _administration(demonstration),
        "",
    ]
    return "\n".join(lines)


def _with_app_password(demonstration: Demonstration, domain: str, port: int) -> list[str]:
    """A login with the app password of a new demonstration."""
    try:
        user, _, password = demonstration.app_password.read_text("utf-8").strip().partition(":")
    except OSError:
        return []
    authority = shlex.quote(str(demonstration.authority))
    return [
        (
            f"curl -sS --cacert {authority} --resolve mail.{domain}:{port}:127.0.0.1 --user '{user}:{password}'"
            f" 'imaps://mail.{domain}:{port}/INBOX;MAILINDEX=1' # with the app password phone"
        ),
        "",
    ]


def _settings(domain: str, host: str, ports: Mapping[str, int], user: Iterable[str]) -> list[str]:
    """Settings for a mail program. `user`: the user of the profile, if there is one."""
    return [
        "",
        domain,
        f"  IMAP        host {host}  port {ports['imaps']}  SSL/TLS   or port {ports['imap']}  STARTTLS",
        f"  POP3        host {host}  port {ports['pop3s']}  SSL/TLS   or port {ports['pop3']}  STARTTLS",
        f"  Submission  host {host}  port {ports['submissions']}  SSL/TLS   or port {ports['submission']}  STARTTLS",
        "  Password    sent as normal password, over TLS only",
        *(f"  Profile     https://{host}:{ports['https']}/profile.mobileconfig?emailaddress={name}" for name in user),
    ]


def _later_domains(demonstration: Demonstration) -> Iterator[tuple[str, str]]:
    """Domains added later, by `mailserver domain add` or an editor, each with its first host."""
    document = tomlkit.parse(demonstration.configuration.read_text("utf-8")).unwrap()
    for domain in document.get("domain", []):
        name, hosts = domain.get("name"), domain.get("hosts")
        if name and hosts and name not in USERS:
            yield name, hosts[0]


def _users(demonstration: Demonstration) -> list[str]:
    """All names of users."""
    return [entry.name for entry in store_of(demonstration).entries()]


def _addresses(demonstration: Demonstration) -> dict[str, list[str]]:
    """Lines about the aliases and groups, by domain. A users file has none."""
    lines: dict[str, list[str]] = {}
    store = store_of(demonstration)
    if isinstance(store, DirectoryStore):
        with store.opened() as database:
            for kind in (AddressKind.ALIAS, AddressKind.GROUP):
                for each in islice(addresses.addresses(database, kind), MOST_ADDRESSES):
                    domain = each.name.rpartition("@")[2]
                    names = [target.name.removesuffix(f"@{domain}") for target in each.targets[:MOST_ADDRESSES]]
                    word = f"{kind.value.capitalize():11}"
                    lines.setdefault(domain, []).append(f"  {word} {each.name}  leads to {', '.join(names)}")
    return lines


def _administration(demonstration: Demonstration) -> str:
    """A command that works from any directory, also without an installed package."""
    sources = Path(__file__).resolve().parents[2]
    words = ["env", f"PYTHONPATH={sources}", sys.executable, "-m", "mailserver.cli", "status"]
    return shlex.join([*words, "--config", str(demonstration.configuration)])


def _changed(demonstration: Demonstration, accounts: Mapping[str, str]) -> Iterator[str]:
    """Names of printed users whose password was changed, for example by `mailserver user password`."""
    named = set(named_users())
    for entry in store_of(demonstration).entries():
        if entry.name in named:
            try:
                same = schemes.verify(entry.stored, accounts[entry.name].encode("utf-8"))
            except schemes.BadHash:
                same = False
            if not same:
                yield entry.name


@click.command("demo")
@click.option("--dir", "directory", type=click.Path(file_okay=False, path_type=Path), default=Path("var/demo"))
@click.option("--port-base", type=click.IntRange(1, 60000), default=10000, help="Ports are this plus 143, 993, ...")
@click.option("--users", "extra_users", type=click.IntRange(0, 100_000), default=0, help="More users: u000, u001, ...")
@click.option(
    "--users-file", is_flag=True, help="Keep the users of a new demonstration in a users file, without aliases."
)
def demo(directory: Path, port_base: int, extra_users: int, *, users_file: bool) -> None:
    """Make a demonstration: CA, two domains, users, aliases, mail, configuration. Existing files are kept."""
    demonstration = Demonstration(directory.resolve(), port_base)
    with expected_errors():
        try:
            accounts = make(demonstration, extra_users, users_file=users_file)
        except (DirectoryUnavailable, Refused) as error:
            raise click.ClickException(str(error)) from error
    click.echo(describe(demonstration, accounts | dict.fromkeys(_changed(demonstration, accounts), CHANGED)))
