"""Options and functions shared by the commands of a private authority."""

from __future__ import annotations

import contextlib
import datetime as dt
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mailserver.cli.options import load_or_fail
from mailserver.config.model import Config
from mailserver.config.values import InvalidValue, http_url
from mailserver.system.atomic_file import replace_file
from mailserver.tls.ca.authority import Authority
from mailserver.tls.ca.names import BadName
from mailserver.tls.ca.private_ca import CERTIFICATE, PrivateCa, open_ca
from mailserver.tls.ca.records import CaFault
from mailserver.tls.keypair.key_password import MAX_PASSWORD
from mailserver.tls.state.history import make_directory
from mailserver.types import Secret

DIRECTORY = "ca"
"""Directory below the state directory."""

dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the authority; by default `ca` below [server] state_dir.",
)

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the passphrase of the authority's key; otherwise the command asks for it if needed.",
)

crl_url_option = click.option(
    "--crl-url",
    help="URL of the revocation list in the certificate; by default [tls] private_ca_crl_url of the configuration.",
)


def crl_url_of(said: str | None, authority: PrivateCa, configuration: Path) -> str:
    """Return the option's URL, or the configuration's for this authority. Raises: ClickException."""
    if said is not None:
        try:
            return http_url(said)
        except InvalidValue as wrong:
            raise click.BadParameter(wrong.reason, param_hint="--crl-url") from wrong
    config = load_or_fail(configuration) if configuration.exists() else None
    if config is None or config.tls.private_ca is None:
        return ""
    is_its = config.tls.private_ca.resolve() == (authority.directory / CERTIFICATE).resolve()
    return config.tls.private_ca_crl_url if is_its else ""


def directory_of(directory: Path | None, configuration: Path) -> Path:
    """Return the authority's directory. Raises: ClickException."""
    return directory or load_or_fail(configuration).server.state_dir / DIRECTORY


def make_state_directory(config: Config) -> None:
    """Make the state directory as the server does, for the user that reads keys. Raises: OSError."""
    owner = None
    if config.server.user and config.server.workers == 0:
        account = pwd.getpwnam(config.server.user)
        owner = (account.pw_uid, account.pw_gid)
    make_directory(config.server.state_dir, owner)


def opened(directory: Path | None, configuration: Path) -> PrivateCa:
    """Open the authority. Raises: CaFault, ClickException."""
    return open_ca(directory_of(directory, configuration))


def unlocked(authority: PrivateCa, passphrase_file: Path | None) -> Authority:
    """Load the authority's key. Raises: CaFault, ClickException."""
    if authority.exposure:
        click.echo(f"warning: {authority.exposure}", err=True)
    return authority.unlock(passphrase_of(passphrase_file, confirm=False) if authority.is_locked else None)


def passphrase_of(file: Path | None, *, confirm: bool, what: str = "Passphrase of the authority's key") -> Secret:
    """Read the first line of a file or of standard input, or prompt at a terminal. Raises: ClickException."""
    if file is not None:
        with file.open("rb") as opened_file:
            line = opened_file.readline(MAX_PASSWORD + 3)
    elif sys.stdin.isatty():
        line = str(click.prompt(what, hide_input=True, confirmation_prompt=confirm)).encode()
    else:
        line = sys.stdin.buffer.readline(MAX_PASSWORD + 3)
    line = line.rstrip(b"\r\n")
    if not 0 < len(line) <= MAX_PASSWORD:
        raise click.ClickException(f"the {what[0].lower()}{what[1:]} must have 1 to {MAX_PASSWORD} octets")
    return Secret(line)


@contextlib.contextmanager
def expected_errors() -> Iterator[None]:
    """Turn expected errors into messages."""
    try:
        yield
    except (CaFault, BadName) as fault:
        raise click.ClickException(str(fault)) from fault
    except BrokenPipeError:
        # The reader of the output closed it: click ends the command.
        raise
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'a file'}: {error.strerror}") from error


def refuse_existing(*paths: Path) -> None:
    """Refuse to overwrite files. Raises: ClickException."""
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise click.ClickException(f"{' and '.join(there)}: exists already; --replace overwrites it")


def write(path: Path, octets: bytes, mode: int) -> None:
    """Write a file atomically. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, octets, mode=mode)
    click.echo(f"wrote {path}")


def read(file: Any, most: int) -> bytes:
    """Read a file of untrusted length. Raises: ClickException."""
    octets: bytes = file.read(most + 1)
    if len(octets) > most:
        raise click.ClickException(f"{file.name} must be at most {most} octets")
    return octets


def now() -> dt.datetime:
    """Return the current time."""
    return dt.datetime.now(dt.UTC)
