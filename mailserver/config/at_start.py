"""Settings that are taken up at the start alone, as what they decide lives as long as the service."""

from __future__ import annotations

from typing import Final

import attrs

from mailserver.config.model import Config

AT_START: Final = {
    "server": ("user", "group", "runtime_dir", "state_dir", "log_file", "log_format", "workers", "transport"),
    "mail": ("root", "location", "special_use", "utf8_names", "escape", "search_index"),
    "auth": ("hash_processes", "hash_queue"),
    "limits": ("mailboxes_per_user", "messages_per_mailbox"),
}
"""By table."""


def keep(running: Config, changed: Config) -> tuple[Config, list[str]]:
    """The changed configuration with the running one's values of these settings, and a line for each that waits.

    So a process that is begun later serves with the same as those before it.
    """
    lines = []
    for table, keys in AT_START.items():
        old, new = getattr(running, table), getattr(changed, table)
        waiting = {name: getattr(old, name) for name in keys if getattr(old, name) != getattr(new, name)}
        lines += [f"[{table}] {name}: waits for the next start" for name in waiting]
        if waiting:
            changed = attrs.evolve(changed, **{table: attrs.evolve(new, **waiting)})
    return changed, lines
