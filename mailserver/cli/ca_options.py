"""What commands on a private authority share: where it is, how it is opened, and what is said of a fault."""

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
"""Below the state directory."""

dir_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the authority; `ca` below [server] state_dir when absent.",
)

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line opens the authority's key; without it a passphrase is asked for where there is one.",
)

crl_url_option = click.option(
    "--crl-url",
    help="URL of the revocation list, written into the certificate; [tls] private_ca_crl_url of the configuration when "
    "absent.",
)


def crl_url_of(said: str | None, one: PrivateCa, configuration: Path) -> str:
    """What was said, or what the configuration says of this authority. Raises: ClickException."""
    if said is not None:
        try:
            return http_url(said)
        except InvalidValue as wrong:
            raise click.BadParameter(wrong.reason, param_hint="--crl-url") from wrong
    config = load_or_fail(configuration) if configuration.exists() else None
    if config is None or config.tls.private_ca is None:
        return ""
    is_its = config.tls.private_ca.resolve() == (one.directory / CERTIFICATE).resolve()
    return config.tls.private_ca_crl_url if is_its else ""


def directory_of(directory: Path | None, configuration: Path) -> Path:
    """Where the authority is. Raises: ClickException."""
    return directory or load_or_fail(configuration).server.state_dir / DIRECTORY


def make_state_directory(config: Config) -> None:
    """As the server makes it, for who reads the keys. Raises: OSError."""
    owner = None
    if config.server.user and config.server.workers == 0:
        account = pwd.getpwnam(config.server.user)
        owner = (account.pw_uid, account.pw_gid)
    make_directory(config.server.state_dir, owner)


def opened(directory: Path | None, configuration: Path) -> PrivateCa:
    """The authority. Raises: CaFault, ClickException."""
    return open_ca(directory_of(directory, configuration))


def unlocked(one: PrivateCa, passphrase_file: Path | None) -> Authority:
    """With its key. Raises: CaFault, ClickException."""
    if one.exposure:
        click.echo(f"warning: {one.exposure}", err=True)
    return one.unlock(passphrase_of(passphrase_file, confirm=False) if one.is_locked else None)


def passphrase_of(file: Path | None, *, confirm: bool, what: str = "Passphrase of the authority's key") -> Secret:
    """The first line of a file, or of standard input; from a terminal unseen. Raises: ClickException."""
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
def telling() -> Iterator[None]:
    """Expected faults in words."""
    try:
        yield
    except (CaFault, BadName) as fault:
        raise click.ClickException(str(fault)) from fault
    except BrokenPipeError:
        # Who reads the output has enough of it: click's to end.
        raise
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'a file'}: {error.strerror}") from error


def refuse_existing(*paths: Path) -> None:
    """Raises: ClickException."""
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise click.ClickException(f"{' and '.join(there)}: already there; --replace puts the new one in its place")


def write(path: Path, octets: bytes, mode: int) -> None:
    """A file, whole. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, octets, mode=mode)
    click.echo(f"wrote {path}")


def read(file: Any, most: int) -> bytes:
    """A file that somebody else has made. Raises: ClickException."""
    octets: bytes = file.read(most + 1)
    if len(octets) > most:
        raise click.ClickException(f"{file.name} must be at most {most} octets")
    return octets


def now() -> dt.datetime:
    """The time."""
    return dt.datetime.now(dt.UTC)
