"""Users and aliases of a JSON file: `backends = ["json:/etc/mailserver/users.json"]`.

{"users": {"anna@example.test": "{SSHA256}..."}, "aliases": {"info@example.test": ["anna@example.test"]}}
"""

import json
from collections.abc import Awaitable
from pathlib import Path

from zope.interface import implementer

from mailserver.auth.interfaces import DomainEntry, Entry, Hasher, IAddresses, IAuthBackend, IBlocking, User
from mailserver.types import Secret


@implementer(IAuthBackend, IAddresses, IBlocking)
class JsonUsers:
    def __init__(self, path: Path, hasher: Hasher) -> None:
        self.path = path
        self.hasher = hasher

    def read(self, part: str) -> dict[str, str | list[str]]:
        # This may be slow: as the class provides IBlocking, threads of its own do it.
        return json.loads(self.path.read_text("utf-8")).get(part, {})

    def find_user(self, name: str) -> User | None:
        return User(name) if name in self.read("users") else None

    def verify_password(self, user: User, password: Secret) -> bool | Awaitable[bool]:
        stored = self.read("users").get(user.name)
        return stored is not None and self.hasher.verify(stored, password)

    def find_address(self, name: str) -> Entry | None:
        targets = self.read("aliases").get(name)
        return Entry(tuple(targets), frozenset(targets)) if targets else None

    def find_domain(self, name: str) -> DomainEntry | None:
        return DomainEntry() if name in self.read("domains") else None


def make_backend(argument: str, hasher: Hasher) -> JsonUsers:
    return JsonUsers(Path(argument), hasher)
