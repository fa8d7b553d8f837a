"""All SQL of the queue, by name. Values are `:name`."""

from __future__ import annotations

from typing import Final

# meta
META: Final = "SELECT version, oldest FROM meta"
ADD_META: Final = "INSERT INTO meta (one, version, oldest, overwritten, tokens_lost_until) VALUES (1, 0, 0, 0, 0)"
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

# work
DUE: Final = "SELECT destination FROM hop WHERE ready <= :now ORDER BY ready LIMIT :count"
NEXT_DUE: Final = "SELECT destination, ready FROM hop WHERE ready IS NOT NULL ORDER BY ready LIMIT :count"
HOPS: Final = "SELECT destination, until, failures, reply FROM hop WHERE failures > 0 ORDER BY until"
HOP: Final = "SELECT until, failures, reply FROM hop WHERE destination = :destination"
_BOTH: Final = f"SELECT {RECIPIENT_COLUMNS}, {MESSAGE_COLUMNS} FROM recipient r JOIN message m ON m.id = r.message"  # noqa: S608 - constants
TAKE: Final = f"""{_BOTH}
WHERE r.destination = :destination AND r.state = 'waiting' AND r.due <= :now
ORDER BY r.due, r.id"""
OVERDUE: Final = f"""{_BOTH}
WHERE r.destination = :destination AND r.state = 'waiting' AND r.wake <= :now
ORDER BY r.wake, r.id"""
DEAD: Final = """
SELECT h.destination FROM hop h
WHERE h.failures > 0 AND h.until > :now
      AND EXISTS (SELECT 1 FROM recipient r WHERE r.destination = h.destination AND r.state = 'waiting' AND r.wake <= :now)"""
RECIPIENT: Final = f"{_BOTH} WHERE r.id = :id"
REMOVE_RECIPIENT: Final = "DELETE FROM recipient WHERE id = :id"
UPDATE_RECIPIENT: Final = """
UPDATE recipient SET due = :due, tries = :tries, notice = :notice, wake = :wake, hop = :hop, reply = :reply WHERE id = :id"""
REMOVE_FINISHED: Final = """
DELETE FROM message WHERE id = :id AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = :id) RETURNING name"""
FIRST_DUE: Final = "SELECT min(due) FROM recipient WHERE destination = :destination AND state = 'waiting'"
REMOVE_HOP: Final = "DELETE FROM hop WHERE destination = :destination"
SET_HOP: Final = """
INSERT INTO hop (destination, due, until, failures, reply, ready)
VALUES (:destination, :due, :until, :failures, :reply, max(:due, :until))
ON CONFLICT (destination) DO UPDATE
SET due = :due, until = :until, failures = :failures, reply = :reply, ready = max(:due, :until)"""

# the sweep
SWEEP_DECISIONS: Final = "DELETE FROM decision WHERE accepted = 0 AND at < :before"
SWEEP_SENT: Final = "DELETE FROM sent WHERE hour < :before"
SWEEP_HOPS: Final = "DELETE FROM hop WHERE due IS NULL AND until < :now"

# administration
RECIPIENTS_OF: Final = f"SELECT {RECIPIENT_COLUMNS} FROM recipient r WHERE r.message = :id ORDER BY r.id"  # noqa: S608 - constants
HOLD: Final = "UPDATE recipient SET state = 'held' WHERE id = :id AND state = 'waiting'"
RELEASE: Final = "UPDATE recipient SET state = 'waiting', due = :now WHERE id = :id AND state = 'held'"
RETRY: Final = "UPDATE recipient SET due = min(due, :now) WHERE id = :id AND state = 'waiting'"
DROP: Final = REMOVE_RECIPIENT
SIZE: Final = "SELECT count(*), COALESCE(sum(size), 0), min(received) FROM message"
RECIPIENTS: Final = "SELECT count(*), COALESCE(sum(state = 'held'), 0) FROM recipient"
BY_DESTINATION: Final = """
SELECT r.destination, count(*) AS recipients, sum(r.state = 'held'), min(m.received)
FROM recipient r JOIN message m ON m.id = r.message
GROUP BY r.destination ORDER BY recipients DESC, r.destination LIMIT :count"""

# the rebuild
ALL_DECISIONS: Final = "SELECT token, accepted, at FROM decision"
ALL_SENT: Final = "SELECT user, hour, recipients FROM sent"
SET_TOKENS_LOST: Final = "UPDATE meta SET tokens_lost_until = :until"
TOKENS_LOST: Final = "SELECT tokens_lost_until FROM meta"
