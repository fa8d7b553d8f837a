-- Times are seconds since 1970, truth values are 0 or 1.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    -- The last schema file that was applied, and the oldest whose programs can use the tables.
    version INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    -- Changed to write over what a failed commit may have left at the end of the WAL.
    overwritten INTEGER NOT NULL,
    -- Until then an unknown token counts as committed, and so does one that was made before: a rebuild could not read those that
    -- were, or these are the first rows of this directory.
    tokens_lost_until INTEGER NOT NULL
);
-- Ids are never used again: results of a try name recipients by them, and a command may have removed these meanwhile.
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The spool file, and where the message begins in it.
    name TEXT NOT NULL UNIQUE,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    sender TEXT NOT NULL,
    received INTEGER NOT NULL,
    eight_bit INTEGER NOT NULL,
    utf8 INTEGER NOT NULL,
    envid TEXT NOT NULL,
    ret TEXT NOT NULL,
    user TEXT NOT NULL,
    source TEXT NOT NULL,
    session TEXT NOT NULL,
    message_id TEXT NOT NULL,
    parent TEXT NOT NULL
);
CREATE TABLE recipient (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message INTEGER NOT NULL REFERENCES message (id),
    address TEXT NOT NULL,
    -- NULL: that of the message.
    sender TEXT,
    orcpt TEXT NOT NULL,
    notify TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('out', 'here')),
    backscatter INTEGER NOT NULL,
    destination TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'held')),
    due INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    -- NULL: no delay is to be reported any more.
    notice INTEGER,
    -- The sooner of the notice and the message's expiry: what happens even while the destination cannot be reached.
    wake INTEGER NOT NULL,
    hop TEXT NOT NULL,
    reply TEXT NOT NULL
);
CREATE INDEX recipient_message ON recipient (message);
CREATE INDEX recipient_due ON recipient (destination, due) WHERE state = 'waiting';
CREATE INDEX recipient_wake ON recipient (destination, wake) WHERE state = 'waiting';
-- A row for each destination that has waiting recipients or is dead. A dead one moves this row, not its recipients.
CREATE TABLE hop (
    destination TEXT PRIMARY KEY,
    -- When the first of its recipients is due; NULL: none waits.
    due INTEGER,
    -- No connection before; 0: it can be reached.
    until INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    reply TEXT NOT NULL,
    -- The later of due and until; NULL: none waits.
    ready INTEGER
) WITHOUT ROWID;
CREATE INDEX hop_ready ON hop (ready) WHERE ready IS NOT NULL;
CREATE INDEX hop_dead ON hop (until) WHERE failures > 0;
-- Tokens of local copies: committed, or refused for ever.
CREATE TABLE decision (
    token TEXT PRIMARY KEY,
    accepted INTEGER NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
-- Recipients that a user has sent to, by hour.
CREATE TABLE sent (
    user TEXT NOT NULL,
    hour INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (user, hour)
) WITHOUT ROWID;
