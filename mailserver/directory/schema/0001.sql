-- The statements run on SQLite and on PostgreSQL: keys are texts that the program makes, times are seconds since 1970,
-- truth values are 0 or 1.
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    -- Identifies this directory: a copy that is restored has the same, and a lower serial.
    id TEXT NOT NULL,
    -- The last schema file that was applied, and the oldest whose programs can use the tables.
    version INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    -- The number of the last change.
    serial BIGINT NOT NULL
);
-- Domains of the directory, besides those of the configuration.
CREATE TABLE domain (
    name TEXT PRIMARY KEY,
    -- The domain that all its addresses stand for; NULL: it has its own.
    alias_of TEXT REFERENCES domain (name) ON UPDATE CASCADE,
    -- The separator of details in local parts; empty: there are none.
    detail TEXT NOT NULL,
    -- A JSON object: protocols, networks. They hold for accounts that have none of their own.
    limits TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1))
);
CREATE TABLE account (
    id TEXT PRIMARY KEY,
    home TEXT NOT NULL,
    full_name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'disabled')),
    -- A JSON object: protocols, networks, storage, messages, mailboxes.
    limits TEXT NOT NULL,
    -- "rounds,salt" of the account's SCRAM keys: all of them share it. Empty: there are none.
    scram_sha256 TEXT NOT NULL,
    scram_sha1 TEXT NOT NULL,
    -- The last change of this account.
    serial BIGINT NOT NULL,
    created BIGINT NOT NULL
);
-- All names under which mail arrives, so that no two things have the same one. An account's own is of kind user. The name
-- "@domain" is the catch-all of a domain.
CREATE TABLE address (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'alias', 'group', 'forward')),
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    note TEXT NOT NULL
);
CREATE TABLE target (
    address TEXT NOT NULL REFERENCES address (name) ON UPDATE CASCADE ON DELETE CASCADE,
    place INTEGER NOT NULL,
    account TEXT REFERENCES account (id) ON DELETE CASCADE,
    elsewhere TEXT,
    may_send INTEGER NOT NULL CHECK (may_send IN (0, 1)),
    PRIMARY KEY (address, place),
    CHECK ((account IS NULL) <> (elsewhere IS NULL))
);
CREATE INDEX target_account ON target (account);
CREATE TABLE credential (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('password', 'app', 'certificate')),
    label TEXT NOT NULL,
    -- "{SCHEME}hash" of a password; empty: no password fits.
    secret TEXT NOT NULL,
    -- SHA-256 of an app password, in hexadecimal.
    probe TEXT UNIQUE,
    -- "StoredKey,ServerKey" under the account's rounds and salt; NULL: there are none.
    scram_sha256 TEXT,
    scram_sha1 TEXT,
    -- Separated by commas; NULL: all.
    protocols TEXT,
    expires BIGINT,
    created BIGINT NOT NULL,
    made_by TEXT NOT NULL
);
CREATE INDEX credential_account ON credential (account);
-- Accounts (or, where `over` is a domain's name, all accounts of it) that another account may log in to.
CREATE TABLE delegate (
    account TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    -- The name of an account or a domain, which is no reference: it may be of another back end.
    over TEXT NOT NULL,
    expires BIGINT,
    why TEXT NOT NULL,
    PRIMARY KEY (account, over)
);
-- What is typical is asked after each change, so it must not be searched for.
CREATE INDEX credential_no_sha256 ON credential (account)
    WHERE kind = 'password' AND secret <> '' AND scram_sha256 IS NULL;
CREATE INDEX credential_no_sha1 ON credential (account)
    WHERE kind = 'password' AND secret <> '' AND scram_sha1 IS NULL;
CREATE INDEX account_sha256 ON account (scram_sha256) WHERE scram_sha256 <> '';
CREATE INDEX account_sha1 ON account (scram_sha1) WHERE scram_sha1 <> '';
-- The audit trail, and the feed of the servers that use the directory. One change may have several rows.
CREATE TABLE change (
    serial BIGINT NOT NULL,
    place INTEGER NOT NULL,
    at BIGINT NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    -- The account's name at that time; empty: no single account is concerned.
    account TEXT NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (serial, place)
);
