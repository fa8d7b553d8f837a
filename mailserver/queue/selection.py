"""Which messages and recipients an administrator means."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from mailserver.queue.model import State

_CONDITIONS: Final = """(:sender IS NULL OR m.sender = :sender)
      AND (:address IS NULL OR r.address = :address)
      AND (:destination IS NULL OR r.destination = :destination)
      AND (:state IS NULL OR r.state = :state)"""
RECIPIENTS: Final = f"""
SELECT r.id, r.message, r.destination FROM recipient r JOIN message m ON m.id = r.message
WHERE (:name IS NULL OR m.name = :name) AND {_CONDITIONS} AND r.id > :after
ORDER BY r.id LIMIT :count"""  # noqa: S608 - constants
OF_MESSAGE: Final = f"""
SELECT r.id, r.message, r.destination FROM message m JOIN recipient r ON r.message = m.id
WHERE m.name = :name AND {_CONDITIONS} AND r.id > :after
ORDER BY r.id LIMIT :count"""  # noqa: S608 - constants
MESSAGES: Final = f"""
SELECT m.id FROM message m
WHERE m.id > :after AND (:name IS NULL OR m.name = :name)
      AND EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id AND {_CONDITIONS})
ORDER BY m.id LIMIT :count"""  # noqa: S608 - constants


@frozen
class Selection:
    """All that is given must match; nothing given matches everything."""

    name: str | None = None
    """The spool name of a message."""
    sender: str | None = None
    """The sender of messages; empty for the null sender."""
    address: str | None = None
    """A recipient."""
    destination: str | None = None
    state: State | None = None

    @property
    def values(self) -> dict[str, str | None]:
        """The values of the conditions."""
        return {
            "name": self.name,
            "sender": self.sender,
            "address": self.address,
            "destination": self.destination,
            "state": self.state,
        }
