"""Effects of `mailserver user` on mail on disk, and on the sessions of a running server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import click

from mailserver.cli.columns import plain
from mailserver.cli.control import Answer, NotRunning, ask
from mailserver.config.model import Config
from mailserver.errors import MailError, NoSuchUser
from mailserver.store.maildir.account import relocation
from mailserver.store.maildir.account.account import is_account
from mailserver.system.as_user import become
from mailserver.wiring.mail_store import make_store

SESSIONS_END = 15.0
"""Seconds to wait for sessions to end: more than the server leaves them."""
_LOOK = 0.2


def reload_users(config: Config | None, user: str | None = None, reason: str = "") -> bool:
    """Ask a running server to reread the users and end the sessions of `user`, and wait for that. Return whether one runs.

    Without a server or a configuration it does nothing. Raises: click.ClickException.
    """
    if config is None:
        return False
    try:
        answer = ask(config, "users", **({"user": user, "reason": reason} if user else {}))
        rows = _rows(answer)
        for row in rows:
            click.echo(plain(f"ended the session {row['session']} ({row['protocol']} from {row['peer'] or 'here'})"))
        if user and rows:
            _wait_for_end(config, user)
    except NotRunning:
        return False
    except (OSError, ValueError) as error:
        raise click.ClickException(
            f"the users file is changed, but the server could not be asked to reread it; sessions of the user may continue: {error}"
        ) from error
    if not answer.ok:
        why = "; ".join(answer.lines) or "the server refused the request"
        if user:
            raise click.ClickException(f"sessions of {user} may continue: {why}")
        # The server rereads the file by itself.
        click.echo(f"warning: the server will use the change within a second: {why}", err=True)
    return True


def _wait_for_end(config: Config, user: str) -> None:
    until = time.monotonic() + SESSIONS_END
    while _rows(ask(config, "who", user=user)):
        if time.monotonic() > until:
            raise click.ClickException(f"sessions of {user} do not end: see `mailserver who --user {user}`")
        time.sleep(_LOOK)


def _rows(answer: Answer) -> list[dict[str, Any]]:
    return answer.data if isinstance(answer.data, list) else []


def place_of(config: Config, user: str, home: str) -> str | None:
    """Return the path of the user's mail, whether it exists or not; None if [mail] location has none for the name."""
    try:
        return make_store(config).path(user, home or None)
    except NoSuchUser:
        return None
    except MailError as error:
        raise click.ClickException(f"{config.mail.root}: {error.sentence}") from error


def has_mail(config: Config, place: str) -> bool:
    """Tell whether there is a Maildir. The marker of an interrupted rename is removed.

    Checked as the service's user, as a mount may keep root out.
    """

    def look() -> str:
        if relocation.is_marker(place):
            relocation.remove_marker(place)
        return "there" if is_account(place) else ""

    return bool(_as_service(config, look))


def expect_free(config: Config, source: str, target: str) -> None:
    """Check that a user's new place has no mail, except that of an interrupted rename.

    Raises: click.ClickException.
    """

    def look() -> str:
        if is_account(target) and not relocation.is_marker(source):
            raise relocation.PlaceTaken(target)
        return ""

    _as_service(config, look)


def move_aside(config: Config, user: str, home: str) -> str:
    """Move a user's mail to a path beside it, with the date. Return the path, or "" if there was none.

    Raises: click.ClickException.
    """

    def move() -> str:
        store = make_store(config)
        source = store.path(user, home or None)
        target = relocation.aside(source, time.time())
        if not store.move(user, home or None, target):
            return ""
        relocation.remove_marker(source)
        return target

    return _as_service(config, move)


def move_mail(config: Config, user: str, home: str, target: str) -> bool:
    """Move a user's mail, and leave the marker. Return whether there was any. Raises: click.ClickException."""
    return bool(_as_service(config, lambda: "moved" if make_store(config).move(user, home or None, target) else ""))


def move_back(config: Config, target: str, source: str) -> None:
    """Undo `move_mail`. Raises: click.ClickException."""

    def move() -> str:
        relocation.exchange(target, source)
        relocation.remove_marker(target)
        return ""

    _as_service(config, move)


def remove_marker(config: Config, place: str) -> None:
    """Remove the marker of `move_mail`, once the server knows the new name. Raises: click.ClickException."""

    def remove() -> str:
        relocation.remove_marker(place)
        return ""

    _as_service(config, remove)


def _as_service(config: Config, work: Callable[[], str]) -> str:
    """Run the work in a child process as the service's user: root follows no links of others.

    Raises: click.ClickException with the reason, where it fails.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        said, status = "", 1
        try:
            become(config.server)
            said, status = work(), 0
        except relocation.PlaceTaken as error:
            said = f"{error} exists already, and may be another user's mail: move it elsewhere first"
        except MailError as error:
            said = error.reason
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            try:
                os.write(writing, said.encode("utf-8", "replace")[: 64 * 1024])
            finally:
                os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    _pid, status = os.waitpid(child, 0)
    if status:
        raise click.ClickException(said or "the process that works on the mail has ended")
    return said
