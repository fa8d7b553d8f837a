"""Declaration of a key with its description."""

from __future__ import annotations

from typing import Any

import attrs


def setting(
    doc: str, *, default: Any = attrs.NOTHING, example: Any = None, hidden: bool = False, formerly: str = ""
) -> Any:
    """A key: its meaning, its default (none: the key is required), and an example as a TOML value.

    `hidden`: people paste secrets here by mistake, so a wrong value is never shown.
    `formerly`: the key's name in the release before, still accepted with a warning (`renamed_keys`).
    """
    return attrs.field(default=default, metadata=description(doc, example=example, hidden=hidden, formerly=formerly))


def description(doc: str, *, example: Any = None, hidden: bool = False, formerly: str = "") -> dict[str, Any]:
    """The metadata of a key, for one that needs a field of its own kind: see `setting`."""
    return {"doc": doc, "example": example, "hidden": hidden, "formerly": formerly}


def position() -> Any:
    """The number of a table among those of its kind, from 1. The loader sets it; it is not a key."""
    return attrs.field(default=0, kw_only=True, eq=False, metadata={"no_key": True})


def not_a_key(*, default: Any) -> Any:
    """A value that the loader sets, and no file."""
    return attrs.field(default=default, metadata={"no_key": True})
