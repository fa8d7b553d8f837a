"""What workers answer to the two orders of a reload, by worker, as the master tells it."""

from __future__ import annotations

from collections.abc import Mapping

from mailserver.net.ipc.message_schema import Json


def faults(prepared: Mapping[int, Json]) -> list[str]:
    """Why some refuse to prepare it, each reason once. None stands for one that has died or does not answer."""
    found = []
    for answer in prepared.values():
        match answer:
            case {"faults": list(said)}:
                found += [str(fault) for fault in said]
            case {"error": str(error)}:
                found.append(f"a worker cannot take it up: {error}")
    return list(dict.fromkeys(found))


def outcome(committed: Mapping[int, Json]) -> tuple[list[str], list[int]]:
    """What was done, each line once; and the workers of those that may still serve as before."""
    lines: list[str] = []
    behind = []
    for worker, answer in committed.items():
        match answer:
            case {"lines": list(said)}:
                lines += [str(line) for line in said]
            case {"error": str(error)}:
                lines.append(f"a worker did not take it up, and is replaced: {error}")
                behind.append(worker)
            case _:
                behind.append(worker)
    return list(dict.fromkeys(lines)), behind
