"""What all clients of the stress know together: who owns which flag of which message, and what has been done."""

from __future__ import annotations

from attrs import define, field

FLAGS = ("\\answered", "\\flagged", "\\draft", "\\seen", "$one", "$two", "$three", "$four")
"""Flags that have owners; \\Deleted has none."""


@define
class Truth:
    """One mailbox of one user, and everything that clients have been told is done."""

    port: int
    user: str
    password: str
    clients: int
    own_messages: bool
    """Each message may be deleted by the client alone that has appended it; else by anybody."""
    contents: dict[int, bytes] = field(factory=dict)
    """UID -> octets of every message that was appended."""
    owners: dict[int, int] = field(factory=dict)
    """UID -> the client that has appended it."""
    flags: dict[tuple[int, str], bool] = field(factory=dict)
    """What the owner of a message's flag has made of it last."""
    deleted: set[int] = field(factory=set)
    """UIDs that some client has begun to flag \\Deleted."""
    recent: dict[int, int] = field(factory=dict)
    """UID -> the session that was told of it as \\Recent."""
    sessions: int = 0
    commands: int = 0

    def owns(self, client: int, uid: int, flag: str) -> bool:
        """Each flag of each message is changed by one client alone."""
        return (uid + 7 * FLAGS.index(flag)) % self.clients == client

    def may_delete(self, client: int, uid: int) -> bool:
        return not self.own_messages or self.owners.get(uid) == client
