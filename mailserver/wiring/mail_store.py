"""The store of a configuration, for the server and for commands."""

from __future__ import annotations

from collections.abc import Callable

from mailserver.config.model import Config
from mailserver.imap.wire.mailbox_names import Namespace
from mailserver.message.render import summarise
from mailserver.store.interfaces import Bounds
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.format.names import LevelEncoding
from mailserver.types import DirectoryId


def make_store(
    config: Config, *, root_seen: DirectoryId | None = None, decided: Callable[[str], bool] | None = None
) -> MaildirStore:
    """Make the store of [mail]. `root_seen`: the mail root as it was at the start. `decided`: see MaildirStore.

    Raises: StoreUnavailable.
    """
    mail = config.mail
    names = Namespace.make(mail.separator, "", slashes=bool(mail.escape))
    return MaildirStore(
        mail.root,
        summarise,
        location=mail.location,
        special_use={use: tuple(map(names.to_store, folders)) for use, folders in mail.special_use.items()},
        encoding=level_encoding(config),
        hostname=config.server.hostname,
        search_index=mail.search_index,
        root_seen=root_seen,
        bounds=Bounds(config.limits.mailboxes_per_user, config.limits.messages_per_mailbox, mail.expunge_history),
        quota_warnings=config.quota.warnings,
        decided=decided,
    )


def level_encoding(config: Config) -> LevelEncoding:
    """Make the encoding of folder names on disk."""
    mail = config.mail
    return LevelEncoding(mail.utf8_names, mail.escape, slashes=bool(mail.escape) and mail.separator == ".")
