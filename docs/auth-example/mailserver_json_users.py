"""Users of a JSON file, `{"anna@example.test": "{SSHA256}..."}`: `backends = ["json:/etc/mailserver/users.json"]`."""

import json
from pathlib import Path

from zope.interface import implementer

from mailserver.auth.interfaces import Hasher, IAuthBackend, User
from mailserver.types import Secret


@implementer(IAuthBackend)
class JsonUsers:
    def __init__(self, entries: dict[str, str], hasher: Hasher) -> None:
        self.entries = entries
        self.hasher = hasher

    def find_user(self, name: str) -> User | None:
        return User(name) if name in self.entries else None

    async def verify_password(self, user: User, password: Secret) -> bool:
        stored = self.entries.get(user.name)
        return stored is not None and await self.hasher.verify(stored, password)


def make_backend(argument: str, hasher: Hasher) -> JsonUsers:
    return JsonUsers(json.loads(Path(argument).read_text("utf-8")), hasher)
