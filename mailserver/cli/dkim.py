"""`mailserver dkim`: the keys that sign submitted mail, and their DNS records.

The commands work on the files in the state directory, which only the user that reads keys can open. A running server is
asked to reload.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import dns.exception

from mailserver.cli.cert import moment
from mailserver.cli.columns import print_table
from mailserver.cli.control import NotRunning, ask
from mailserver.cli.dns_answers import BadResolver, Resolver, unanswered
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail, suggestion
from mailserver.config.model import Config, Domain
from mailserver.discovery.dns_records import dkim_records
from mailserver.discovery.services import find_domain
from mailserver.dkim import key_file
from mailserver.dkim.key_file import BadKeyFile, CannotChange, DomainKeys, KeySet
from mailserver.dkim.keys import record_name
from mailserver.dkim.published import fault

_json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of lines for people.")
_selector_option = click.option(
    "--selector", metavar="NAME", help="Begin the selectors with NAME, instead of today's date: NAME-rsa, NAME-ed25519."
)
_WORDS: Final = {
    "waiting": "waits for its DNS record",
    "signing": "signs",
    "retired": "signs no more; mail on its way still needs the record",
    "removable": "signs no more; remove the record",
}


@click.group("dkim", cls=FullHelpGroup)
def dkim() -> None:
    """DKIM keys: create, publish, change."""


@dkim.command("create")
@click.argument("name", metavar="DOMAIN")
@_selector_option
@_json_option
@config_option
def create(configuration: Path, name: str, selector: str | None, *, as_json: bool) -> None:
    """Make an RSA and an Ed25519 key for DOMAIN, and print the DNS records to publish.

    From now on mail that users of DOMAIN submit is signed. Receivers ignore signatures until the records are published.
    """
    config, domain = _domain(configuration, name)
    with _changing(config):
        if key_file.read(config.server.state_dir, domain.name) is not None:
            raise CannotChange(f"{domain.name} has keys already: `mailserver dkim rotate {domain.name}` makes new ones")
        now = time.time()
        keys = DomainKeys(domain.name.lower(), ())
        keys = keys.with_set(selector or _today(now), now).with_waiting_signing(now)
        key_file.write(config.server.state_dir, keys)
    _show(keys, as_json=as_json)
    if domain.dkim == "off":
        click.echo(f'{domain.place} has dkim = "off": its mail stays unsigned until that is removed', err=True)
    _reload(config)


@dkim.command("show")
@click.argument("name", metavar="DOMAIN")
@_json_option
@config_option
def show(configuration: Path, name: str, *, as_json: bool) -> None:
    """Show the keys of DOMAIN, the DNS records to publish, and those to remove."""
    config, domain = _domain(configuration, name)
    with _expected_errors():
        keys = _existing(config, domain)
    _show(keys, as_json=as_json)
    if exposed := key_file.exposed(config.server.state_dir, domain.name):
        click.echo(exposed, err=True)


@dkim.command("rotate")
@click.argument("name", metavar="DOMAIN")
@_selector_option
@click.option("--now", "at_once", is_flag=True, help="Sign with the waiting keys without asking DNS for their records.")
@_json_option
@config_option
def rotate(configuration: Path, name: str, selector: str | None, *, at_once: bool, as_json: bool) -> None:
    """Make new keys for DOMAIN, which sign once DNS shows their records.

    A running server asks DNS every five minutes. The records of the present keys must stay for a week after that, as
    mail that they have signed is still on its way; then `mailserver dkim show` lists them for removal.
    """
    config, domain = _domain(configuration, name)
    with _changing(config):
        keys, now = _existing(config, domain), time.time()
        name = selector or keys.new_name(_today(now))
        keys = keys.with_waiting_signing(now) if at_once else keys.with_set(name, now)
        key_file.write(config.server.state_dir, keys)
    _show(keys, as_json=as_json)
    _reload(config)


@dkim.command("check")
@click.argument("name", metavar="DOMAIN")
@click.option("--resolver", metavar="HOST:PORT", help="Ask this server, by its address, instead of the system's.")
@_json_option
@config_option
def check(configuration: Path, name: str, resolver: str | None, *, as_json: bool) -> None:
    """Compare the keys of DOMAIN with their DNS records.

    The exit status is 1 if receivers cannot verify what is signed now, or the keys are in danger.
    """
    config, domain = _domain(configuration, name)
    with _expected_errors():
        keys = _existing(config, domain)
        rows = list(_findings(keys, Resolver(resolver)))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        print_table(
            ("RECORD", "KEY", "STATE", "RESULT"),
            [(row["name"], row["key_state"], row["state"], row["reason"]) for row in rows],
        )
    exposed = key_file.exposed(config.server.state_dir, domain.name)
    if exposed:
        click.echo(exposed, err=True)
    if exposed or any(row["key_state"] == "signing" and row["state"] != "ok" for row in rows):
        raise SystemExit(1)


def _findings(keys: DomainKeys, resolver: Resolver) -> Iterator[dict[str, str]]:
    """A row for each key. State: ok, missing, different, unanswered; removable keys are missing where all is well."""
    now = time.time()
    for each in keys.sets:
        key_state = each.state(now)
        for key in each.keys:
            name = record_name(key.selector, keys.domain)
            try:
                found = resolver.texts(name)
            except dns.exception.DNSException as error:
                state, reason = "unanswered", unanswered(error)
            else:
                reason = fault(key.record, found)
                state = "ok" if not reason else "different" if found else "missing"
                if key_state == "removable":
                    reason = "remove the record" if found else ""
                elif key_state == "retired" and reason:
                    reason += "; mail that the key has signed is still on its way"
                elif key_state == "waiting" and not reason:
                    reason = "the server signs with it within minutes"
            yield {"name": name, "key_state": key_state, "state": state, "reason": reason}


def _show(keys: DomainKeys, *, as_json: bool) -> None:
    now = time.time()
    if as_json:
        click.echo(json.dumps(_document(keys, now), indent=2))
        return
    print_table(
        ("SELECTOR", "KEY", "STATE", "SINCE"),
        [
            (key.selector, key.algorithm, _WORDS[each.state(now)], moment(_since(each)))
            for each in keys.sets
            for key in each.keys
        ],
    )
    click.echo("")
    click.echo("; publish:")
    for record in dkim_records(keys.domain, _texts(keys, now, removable=False)):
        click.echo(str(record))
    if old := _texts(keys, now, removable=True):
        click.echo("; remove:")
        for selector, _text in old:
            click.echo(f"; {record_name(selector, keys.domain)} TXT")


def _document(keys: DomainKeys, now: float) -> dict[str, Any]:
    return {
        "domain": keys.domain,
        "keys": [
            {
                "selector": key.selector,
                "algorithm": key.algorithm,
                "state": each.state(now),
                "created": each.created,
                "signs_since": each.signs_since,
                "retired": each.retired,
                "name": record_name(key.selector, keys.domain),
                "text": key.record,
            }
            for each in keys.sets
            for key in each.keys
        ],
        "records": [str(record) for record in dkim_records(keys.domain, _texts(keys, now, removable=False))],
        "remove": [record_name(selector, keys.domain) for selector, _text in _texts(keys, now, removable=True)],
    }


def published_keys(config: Config, domain: Domain) -> list[tuple[str, str]]:
    """Selector and text of each record that a domain must have; none without keys. Raises: BadKeyFile."""
    keys = key_file.read(config.server.state_dir, domain.name)
    return [] if keys is None else _texts(keys, time.time(), removable=False)


def _texts(keys: DomainKeys, now: float, *, removable: bool) -> list[tuple[str, str]]:
    return [
        (key.selector, key.record)
        for each in keys.sets
        if (each.state(now) == "removable") is removable
        for key in each.keys
    ]


def _since(keys: KeySet) -> int:
    return keys.retired or keys.signs_since or keys.created


def _today(now: float) -> str:
    return time.strftime("%Y%m%d", time.gmtime(now))


def _domain(configuration: Path, name: str) -> tuple[Config, Domain]:
    config = load_or_fail(configuration)
    domain = find_domain(config, name.rstrip("."))
    if domain is None:
        known: Sequence[str] = [each.name for each in config.domains]
        raise click.ClickException(f"no [[domain]] is called {name}{suggestion(name, known)}")
    return config, domain


def _existing(config: Config, domain: Domain) -> DomainKeys:
    """The keys of a domain. Raises: BadKeyFile, CannotChange."""
    keys = key_file.read(config.server.state_dir, domain.name)
    if keys is None:
        raise CannotChange(f"{domain.name} has no DKIM keys: `mailserver dkim create {domain.name}` makes them")
    return keys


@contextlib.contextmanager
def _changing(config: Config) -> Iterator[None]:
    with _expected_errors(), key_file.changing(config.server.state_dir):
        yield


@contextlib.contextmanager
def _expected_errors() -> Iterator[None]:
    try:
        yield
    except (BadKeyFile, CannotChange, BadResolver) as error:
        raise click.ClickException(str(error)) from error


def _reload(config: Config) -> None:
    """Have a running server use the keys; its lines go to standard error, beside the records."""
    try:
        answer = ask(config, "reload")
    except NotRunning:
        click.echo("no server is running; it will use the keys when started", err=True)
        return
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the keys are stored, but the server could not reload: {error}") from error
    for line in answer.lines:
        click.echo(line, err=True)
    if not answer.ok:
        raise click.ClickException("the keys are stored, but the server has not taken up everything: see above")
