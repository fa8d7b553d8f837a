"""All SQL of the queue, by name. Values are `:name`."""

from __future__ import annotations

from typing import Final

# meta
META: Final = "SELECT version, oldest FROM meta"
ADD_META: Final = "INSERT INTO meta (one, version, oldest, overwritten) VALUES (1, 0, 0, 0)"
SET_VERSION: Final = "UPDATE meta SET version = :version, oldest = :oldest"
OVERWRITE: Final = "UPDATE meta SET overwritten = overwritten + 1"

# messages
MESSAGE_COLUMNS: Final = """m.id, m.name, m.start, m.size, m.expires, m.sender, m.received, m.eight_bit, m.utf8, m.envid, m.ret,
       m.user, m.source, m.session, m.message_id, m.parent"""
ADD_MESSAGE: Final = """
INSERT INTO message (name, start, size, expires, sender, received, eight_bit, utf8, envid, ret, user, source, session,
                     message_id, parent)
VALUES (:name, :start, :size, :expires, :sender, :received, :eight_bit, :utf8, :envid, :ret, :user, :source, :session,
        :message_id, :parent)
RETURNING id"""
MESSAGE: Final = f"SELECT {MESSAGE_COLUMNS} FROM message m WHERE m.id = :id"  # noqa: S608 - constants
HAS_NAME: Final = "SELECT 1 FROM message WHERE name = :name"

# recipients
RECIPIENT_COLUMNS: Final = """r.id, r.message, r.address, r.destination, r.kind, r.sender, r.orcpt, r.notify, r.backscatter,
       r.state, r.due, r.tries, r.notice, r.hop, r.reply"""
ADD_RECIPIENT: Final = """
INSERT INTO recipient (message, address, sender, orcpt, notify, kind, backscatter, destination, state, due, tries, notice,
                       wake, hop, reply)
VALUES (:message, :address, :sender, :orcpt, :notify, :kind, :backscatter, :destination, 'waiting', :due, 0, :notice,
        :wake, '', '')"""

# destinations
NEW_WAITING: Final = """
INSERT INTO hop (destination, due, until, failures, reply, ready) VALUES (:destination, :due, 0, 0, '', :due)
ON CONFLICT (destination) DO UPDATE
SET due = min(COALESCE(due, :due), :due), ready = max(until, min(COALESCE(due, :due), :due))"""

# decisions
DECISION: Final = "SELECT accepted FROM decision WHERE token = :token"
DECIDE: Final = "INSERT INTO decision (token, accepted, at) VALUES (:token, :accepted, :at)"
FORGET: Final = "DELETE FROM decision WHERE token = :token AND accepted = 1"

# counts
ADD_SENT: Final = """
INSERT INTO sent (user, hour, recipients) VALUES (:user, :hour, :recipients)
ON CONFLICT (user, hour) DO UPDATE SET recipients = recipients + :recipients"""
SENT: Final = "SELECT COALESCE(sum(recipients), 0) FROM sent WHERE user = :user AND hour >= :hour"
