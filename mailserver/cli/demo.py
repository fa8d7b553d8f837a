"""`mailserver demo`: makes a demonstration, and says how to use it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import click
import tomlkit

from mailserver.auth.schemes import schemes
from mailserver.cli.ca_options import telling
from mailserver.cli.demo_making import OFFSETS, USERS, Demonstration, make, named_users, sites_of

CHANGED = "(changed since)"
"""Printed in the place of a password that is no longer the one of accounts.txt."""


def describe(demonstration: Demonstration, accounts: Mapping[str, str]) -> str:
    """How to connect: client settings of each domain, three commands to copy, and the administrator's."""
    base = demonstration.port_base
    ports = {protocol: base + offset for protocol, offset in OFFSETS.items()}
    lines = [
        f"Everything is in {demonstration.directory}; the mail is kept from run to run.",
        f"Trust this authority in your mail program: {demonstration.authority}",
        "Where a program insists on resolving the host names, put this line into /etc/hosts:",
        f"127.0.0.1 {' '.join(host for domain in USERS for host in (f'mail.{domain}', *sites_of(domain)))}",
    ]
    for domain, local_parts in USERS.items():
        users = [f"{each}@{domain}" for each in local_parts]
        lines += _settings(domain, f"mail.{domain}", ports, users[:1])
        lines += [f"  User        {name}  {accounts[name]}" for name in users]
    for domain, host in _later_domains(demonstration):
        users = [name for name in _users(demonstration) if name.endswith(f"@{domain}")]
        lines += _settings(domain, host, ports, users[:1])
        lines += [f"  User        {name}" for name in users] or [f"  User        none yet: user add NAME@{domain}"]
    named = list(named_users())
    if len(accounts) > len(named):
        lines += ["", f"{len(accounts) - len(named)} more accounts are in {demonstration.accounts}"]
    first, second = list(USERS)[:2]
    reader, writer = f"{USERS[first][0]}@{first}", f"{USERS[second][1]}@{second}"
    authority = shlex.quote(str(demonstration.authority))
    lines += [
        "",
        "See it work (copy these; each is one line):",
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
        (
            f"swaks --server 127.0.0.1 --port {ports['submission']} --tls --tls-sni mail.{second} --tls-verify"
            f" --tls-verify-target mail.{second} --tls-ca-path {authority} --auth PLAIN --auth-user {writer}"
            f" --auth-password='{accounts[writer]}' --from {writer} --to {reader} --header 'Subject: Hello from {second}'"
        ),
        "",
        f"What Thunderbird asks for: https://autoconfig.{first}:{ports['https']}/mail/config-v1.1.xml",
        f"How mail programs come to trust the authority: http://127.0.0.1:{ports['http']}/ca",
        f"Numbers for Prometheus: http://127.0.0.1:{ports['metrics']}/metrics (and /health)",
        "",
        "And the administrator's side (`who`, `user list`, `show` instead of `status`, too):",
        "",
        _administration(demonstration),
        "",
    ]
    return "\n".join(lines)


def _settings(domain: str, host: str, ports: Mapping[str, int], user: Iterable[str]) -> list[str]:
    """What to enter into a mail program. `user`: whom the profile is for, if there is one."""
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
    """Those that `mailserver domain add`, or somebody's editor, has added, each with its first host."""
    document = tomlkit.parse(demonstration.configuration.read_text("utf-8")).unwrap()
    for domain in document.get("domain", []):
        name, hosts = domain.get("name"), domain.get("hosts")
        if name and hosts and name not in USERS:
            yield name, hosts[0]


def _users(demonstration: Demonstration) -> list[str]:
    """All names of the users file."""
    return [line.partition(":")[0] for line in demonstration.users.read_text("utf-8").splitlines()]


def _administration(demonstration: Demonstration) -> str:
    """A command that works from any directory, where the package is not installed, too."""
    sources = Path(__file__).resolve().parents[2]
    words = ["env", f"PYTHONPATH={sources}", sys.executable, "-m", "mailserver.cli", "status"]
    return shlex.join([*words, "--config", str(demonstration.configuration)])


def _changed(demonstration: Demonstration, accounts: Mapping[str, str]) -> Iterator[str]:
    """Names of those printed whose password is another one now, by `mailserver user password` say."""
    for line in demonstration.users.read_text("utf-8").splitlines():
        name, _, fields = line.partition(":")
        if name in set(named_users()):
            try:
                same = schemes.verify(fields.partition(":")[0], accounts[name].encode("utf-8"))
            except schemes.BadHash:
                same = False
            if not same:
                yield name


@click.command("demo")
@click.option("--dir", "directory", type=click.Path(file_okay=False, path_type=Path), default=Path("var/demo"))
@click.option("--port-base", type=click.IntRange(1, 60000), default=10000, help="Ports are this plus 143, 993, ...")
@click.option("--users", "extra_users", type=click.IntRange(0, 100_000), default=0, help="More users: u000, u001, ...")
def demo(directory: Path, port_base: int, extra_users: int) -> None:
    """Make a demonstration: CA, two domains, users, mail, configuration. What is there is kept."""
    demonstration = Demonstration(directory.resolve(), port_base)
    with telling():
        accounts = make(demonstration, extra_users)
    click.echo(describe(demonstration, accounts | dict.fromkeys(_changed(demonstration, accounts), CHANGED)))
