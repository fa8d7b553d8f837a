"""Settings that take effect only at the start, as they concern objects that live as long as the service."""

from __future__ import annotations

from typing import Final

import attrs

from mailserver.config.model import Config

START_SETTINGS: Final = {
    "server": ("user", "group", "runtime_dir", "state_dir", "log_file", "log_format", "workers", "transport"),
    "mail": ("root", "location", "special_use", "utf8_names", "escape", "search_index", "expunge_history"),
    "queue": ("directory",),
    "auth": ("hash_processes", "hash_queue"),
    "quota": ("warnings",),
    "limits": ("mailboxes_per_user", "messages_per_mailbox"),
}
"""Their keys, by table."""


def keep_start_settings(running: Config, changed: Config) -> tuple[Config, list[str]]:
    """Return the changed configuration with the running values of these settings, and a line for each changed one.

    So a process that starts later has the same settings as the processes before it.
    """
    lines = []
    for table, keys in START_SETTINGS.items():
        old, new = getattr(running, table), getattr(changed, table)
        waiting = {name: getattr(old, name) for name in keys if getattr(old, name) != getattr(new, name)}
        lines += [f"[{table}] {name}: takes effect at the next start" for name in waiting]
        if waiting:
            changed = attrs.evolve(changed, **{table: attrs.evolve(new, **waiting)})
    return changed, lines
