"""`mailserver cert`: adding, listing and restoring certificates.

The commands ask a running server over its control socket. If none runs they work on its state directory, which only the
user that reads keys can open.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from mailserver.cli.columns import print_table
from mailserver.cli.control import Answer, NotRunning, ask, ask_if_running
from mailserver.cli.options import FullHelpGroup, config_option, load_or_fail
from mailserver.cli.sessions import finish
from mailserver.config.directories import reader_trust
from mailserver.config.model import Config
from mailserver.tls.changes.activation import Activation
from mailserver.tls.changes.listing import certificate_rows, history_rows
from mailserver.tls.changes.transaction import ChangeRefused, RecordedChange, Transaction
from mailserver.tls.keypair.pem import MAX_FILE
from mailserver.tls.keypair.signature import sign
from mailserver.tls.serving.policy import CannotServe, TlsPolicy
from mailserver.tls.state.history import CannotRecord, History

_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")


@click.group("cert", cls=FullHelpGroup)
def cert() -> None:
    """Certificates: list, add, restore."""


@cert.command("add")
@click.argument("hosts", metavar="[NAME]...", nargs=-1)
@click.option("--certificate", type=click.File("rb"), required=True, help="PEM: the certificate, then its chain.")
@click.option(
    "--key",
    type=click.File("rb"),
    help="PEM: its key, without a passphrase; by default the keys served now.",
)
@click.option("--second-certificate", type=click.File("rb"), help="One with a key of the other type, RSA or ECDSA.")
@click.option("--second-key", type=click.File("rb"), help="PEM: its key.")
@click.option("--reason", default="added by the administrator", show_default=True, help="Text for the history.")
@config_option
def add(
    configuration: Path,
    hosts: tuple[str, ...],
    *,
    certificate: Any,
    key: Any,
    second_certificate: Any,
    second_key: Any,
    reason: str,
) -> None:
    """Serve the host names NAME with a certificate; without names, all that it covers.

    This is for hosts whose [[domain]] has no `certificate` and `key`. The certificate is validated and tried first; if
    that fails, the command says why and changes nothing.
    """
    # Either both keys are given, or both certificates are for the keys served now.
    if (second_key is None) != (second_certificate is None or key is None):
        raise click.UsageError("--second-certificate and --second-key belong together")
    second = None if second_certificate is None else (_read(second_certificate), _read(second_key))
    wanted = [host.lower() for host in hosts]
    offer(configuration, wanted, _read(certificate), _read(key), second=second, reason=reason)


def offer(
    configuration: Path,
    hosts: Sequence[str],
    chain_pem: bytes,
    key_pem: bytes,
    *,
    second: tuple[bytes, bytes] | None = None,
    reason: str,
) -> None:
    """Serve hosts with one or two pairs, as `cert add` does. Raises: SystemExit, ClickException."""
    second_chain, second_pem = second or (b"", b"")
    _change(
        configuration,
        lambda transaction: transaction.offer(hosts, chain_pem, key_pem, second=second, reason=reason, origin="added"),
        "cert-add",
        hosts=" ".join(hosts),
        chain=chain_pem.decode("ascii", "replace"),
        key=key_pem.decode("ascii", "replace"),
        second_chain=second_chain.decode("ascii", "replace"),
        second_key=second_pem.decode("ascii", "replace"),
        reason=reason,
    )


@cert.command("activate")
@click.argument("host", metavar="NAME")
@click.argument("number", metavar="ID|file")
@config_option
def activate(configuration: Path, host: str, number: str) -> None:
    """Serve NAME with an earlier activation of its history, or with its files again."""
    if number != "file" and not number.isdecimal():
        raise click.BadParameter("is the number of an activation, as `mailserver cert history` lists them, or `file`")
    host, wanted = host.lower(), None if number == "file" else int(number)
    _change(
        configuration, lambda transaction: transaction.activate(host, wanted), "cert-activate", host=host, id=number
    )


@cert.command("rollback")
@click.argument("host", metavar="NAME")
@config_option
def rollback(configuration: Path, host: str) -> None:
    """Serve NAME with its previous certificate; each repetition goes back one step further.

    Files that the configuration names are ignored until they change, or until `cert activate NAME file`.
    """
    host = host.lower()
    _change(configuration, lambda transaction: transaction.roll_back(host), "cert-rollback", host=host)


@cert.command("list")
@_json_option
@config_option
def list_(configuration: Path, *, as_json: bool) -> None:
    """List the host names with their certificates."""
    answer = listed_by_server_or_file(configuration)
    if as_json:
        click.echo(json.dumps(answer.data, indent=2))
    else:
        print_table(
            ("HOST", "UNTIL", "DAYS LEFT", "FROM", "ISSUER", "SHA-256", "ACTIVATION"),
            [
                (
                    row["host"],
                    row["not_after"][:10],
                    str(row["days_left"]),
                    row["origin"],
                    row["issuer"],
                    row["fingerprint"][:16],
                    text(row["activation"]),
                )
                for row in answer.data
            ],
        )
    finish(answer)


@cert.command("history")
@click.argument("host", metavar="[NAME]", default="")
@_json_option
@config_option
def history(configuration: Path, host: str, *, as_json: bool) -> None:
    """List the activations of NAME, or of all names, the newest first."""
    host = host.lower()
    try:
        answer = ask_if_running(configuration, "cert-history", host=host)
    except NotRunning:
        with _expected_errors(), contextlib.closing(_history(load_or_fail(configuration))) as opened:
            answer = Answer(True, (), history_rows(opened, host))
    if host and answer.ok and not answer.data:
        raise click.ClickException(f"{host}: has no history; without a name the command lists all")
    if as_json:
        click.echo(json.dumps(answer.data, indent=2))
    else:
        print_table(
            ("ID", "HOST", "TIME", "FROM", "SHA-256", "REASON"),
            [
                (
                    str(row["id"]),
                    row["host"],
                    moment(row["time"]),
                    row["origin"],
                    row["fingerprint"][:16],
                    row["reason"] + " (revoked)" * row["revoked"],
                )
                for row in answer.data
            ],
        )
    finish(answer)


def _change(configuration: Path, work: Callable[[Transaction], RecordedChange], request: str, **arguments: str) -> None:
    try:
        answer = ask_if_running(configuration, request, **arguments)
    except NotRunning:
        config = load_or_fail(configuration)
        with _expected_errors(), contextlib.closing(_history(config)) as opened:
            activation, policy = _policy(config, opened)
            try:
                changed = work(Transaction(activation, policy, config, dt.datetime.now(dt.UTC)))
            except ChangeRefused as refused:
                answer = Answer(False, (*refused.lines, "nothing was changed"))
            else:
                answer = Answer(
                    changed.whole, (*changed.lines, "no server is running; it will serve this when started")
                )
    for line in answer.lines:
        click.echo(line, err=not answer.ok)
    if not answer.ok:
        raise SystemExit(1)


def listed(config: Config) -> Answer:
    """Return `listing.certificate_rows` of the server, or of what it would serve if none runs.

    Raises: ClickException.
    """
    try:
        return ask(config, "cert-list")
    except NotRunning:
        with _expected_errors(), contextlib.closing(_history(config)) as opened:
            activation, policy = _policy(config, opened)
            return Answer(
                True, ("no server is running; this is what one would serve",), certificate_rows(policy, activation)
            )
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def listed_by_server_or_file(configuration: Path) -> Answer:
    """Ask a running server, even if its configuration file is invalid by now; otherwise as `listed`."""
    try:
        return ask_if_running(configuration, "cert-list")
    except NotRunning:
        return listed(load_or_fail(configuration))


def signed(config: Config, host: str, octets: bytes) -> bytes:
    """Sign octets with the certificate and key of a host (CMS). Raises: ClickException."""
    with _expected_errors(), contextlib.closing(_history(config)) as opened:
        _activation, policy = _policy(config, opened)
        serving = policy.served.by_host.get(host)
    if serving is None or serving.origin == "self-signed":
        raise click.ClickException(
            f"there is no certificate of {host or 'a host'} to sign with; --unsigned omits the signature"
        )
    return sign(serving.pair, octets)


def _history(config: Config) -> History:
    opened = History.open(config.server.state_dir, config.tls.history, config.tls.history_days)
    if not opened.is_durable:
        raise click.ClickException(opened.problem)
    if opened.problem:
        click.echo(opened.problem, err=True)
    return opened


def _policy(config: Config, opened: History) -> tuple[Activation, TlsPolicy]:
    """Build what a server would serve now. Raises: CannotServe."""
    activation = Activation(opened, trusted=reader_trust(config))
    return activation, TlsPolicy(config, _discard, source=activation)


def _discard(_event: str, /, **_fields: object) -> None:
    """Discard log events: the command prints the results itself."""


@contextlib.contextmanager
def _expected_errors() -> Iterator[None]:
    try:
        yield
    except (CannotRecord, CannotServe) as error:
        raise click.ClickException(str(error)) from error


def _read(file: Any) -> bytes:
    """Read a file; empty without one. Raises: ClickException."""
    if file is None:
        return b""
    octets: bytes = file.read(MAX_FILE + 1)
    if len(octets) > MAX_FILE:
        raise click.ClickException(f"{file.name} must be at most {MAX_FILE} octets")
    return octets


def text(value: object) -> str:
    """Convert a value to text; "" for None."""
    return "" if value is None else str(value)


def moment(seconds: int | None) -> str:
    """Format a Unix time, UTC."""
    return "" if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
