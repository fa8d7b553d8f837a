"""The files of annotations: `mailserver-metadata` in a mailbox's directory, `mailserver-server-metadata` in the root.

A file is a JSON object of entry names and values. A value is a string if its octets are UTF-8, else `{"base64": "..."}`. As the
file is in the directory, a rename moves it and a removal removes it, whichever program does that. Dovecot leaves it alone.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from mailserver.errors import StoreUnavailable
from mailserver.store.annotations import Annotations
from mailserver.store.maildir.disk import safeio

FILE_NAME: Final = "mailserver-metadata"
ACCOUNT_FILE_NAME: Final = "mailserver-server-metadata"


def read(path: str) -> Annotations | None:
    """Read the file; None without one. Raises: StoreUnavailable, also for a damaged file: no change may replace it."""
    try:
        document = json.loads(safeio.read_file(path))
        return {str(name).lower(): _decoded(value) for name, value in document.items()}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreUnavailable(f"a file of annotations is damaged: {error!r}") from error


def write(path: str, annotations: Annotations) -> None:
    """Write the file, durably. Raises: NoSpace, StoreUnavailable, FileNotFoundError if the mailbox is gone."""
    lines = [f"{json.dumps(name)}: {json.dumps(_encoded(value))}" for name, value in sorted(annotations.items())]
    safeio.replace(path, "{{\n{}\n}}\n".format(",\n".join(lines)).encode("ascii"))


def _encoded(value: bytes) -> Any:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


def _decoded(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8")
    return base64.b64decode(value["base64"], validate=True)
