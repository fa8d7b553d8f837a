"""All SQL of the directory, by name. Each statement runs on SQLite and on PostgreSQL; values are `:name`."""

from __future__ import annotations

from typing import Final

# meta
META: Final = "SELECT id, version, oldest, serial FROM meta"
ADD_META: Final = "INSERT INTO meta (one, id, version, oldest, serial) VALUES (1, :id, 0, 0, 0)"
SET_VERSION: Final = "UPDATE meta SET version = :version, oldest = :oldest"
SET_ID: Final = "UPDATE meta SET id = :id"
RAISE_SERIAL: Final = "UPDATE meta SET serial = :above WHERE serial < :above"
NEXT_SERIAL: Final = "UPDATE meta SET serial = serial + 1 RETURNING serial"

# accounts
_COLUMNS: Final = """
SELECT a.id, n.name, a.home, a.full_name, a.state, a.limits, a.serial, a.created,
       a.scram_sha256, a.scram_sha1, c.protocols, c.secret, c.scram_sha256, c.scram_sha1"""
_ACCOUNT: Final = """
JOIN target t ON t.address = n.name
JOIN account a ON a.id = t.account
LEFT JOIN credential c ON c.account = a.id AND c.kind = 'password'"""
_SENDERS: Final = """
LEFT JOIN target s ON s.account = a.id AND s.may_send = 1 AND s.address <> n.name
LEFT JOIN address sender ON sender.name = s.address AND sender.enabled = 1"""
ACCOUNT: Final = f"""{_COLUMNS}, sender.name
FROM address n {_ACCOUNT} {_SENDERS}
WHERE n.kind = 'user' AND n.name = :name"""
"""A row for each address that the account may send as, at least one."""
LOGIN: Final = f"""{_COLUMNS}, NULL
FROM address n {_ACCOUNT}
WHERE n.kind = 'user' AND n.name = :name"""
"""The same without these addresses."""
_LOGIN_ROW: Final = """
SELECT n.name, a.home, a.state, a.limits, c.protocols, COALESCE(c.secret, ''),
       a.scram_sha256, a.scram_sha1, c.scram_sha256, c.scram_sha1"""
LOGIN_ROW: Final = f"""{_LOGIN_ROW}
FROM address n {_ACCOUNT}
WHERE n.kind = 'user' AND n.name = :name"""
"""The columns of `model.LoginRow`."""
ACCOUNTS: Final = f"""{_COLUMNS}, sender.name
FROM (SELECT name FROM address WHERE kind = 'user' AND name > :after ORDER BY name LIMIT :count) n {_ACCOUNT} {_SENDERS}
ORDER BY n.name"""  # noqa: S608 - constants
COUNT: Final = "SELECT count(*) FROM address WHERE kind = 'user'"
ADD_ACCOUNT: Final = """
INSERT INTO account (id, home, full_name, state, limits, scram_sha256, scram_sha1, serial, created)
VALUES (:id, :home, :full_name, :state, :limits, :scram_sha256, :scram_sha1, :serial, :at)"""
SET_STATE: Final = "UPDATE account SET state = :state, serial = :serial WHERE id = :id"
SET_LIMITS: Final = "UPDATE account SET limits = :limits, serial = :serial WHERE id = :id"
SET_SCRAM: Final = """
UPDATE account SET scram_sha256 = :scram_sha256, scram_sha1 = :scram_sha1, serial = :serial WHERE id = :id"""
SET_SERIAL: Final = "UPDATE account SET serial = :serial WHERE id = :id"
SET_ACCOUNT: Final = """
UPDATE account SET home = :home, full_name = :full_name, state = :state, limits = :limits, serial = :serial
WHERE id = :id"""
DELETE_ACCOUNT: Final = "DELETE FROM account WHERE id = :id"

# addresses
ADDRESS: Final = "SELECT kind FROM address WHERE name = :name"
ADD_ADDRESS: Final = "INSERT INTO address (name, kind, enabled, note) VALUES (:name, :kind, 1, '')"
RENAME_ADDRESS: Final = "UPDATE address SET name = :new WHERE name = :old"
DELETE_ADDRESS: Final = "DELETE FROM address WHERE name = :name"
ADD_TARGET: Final = """
INSERT INTO target (address, place, account, elsewhere, may_send) VALUES (:address, :place, :account, NULL, 1)"""
_OWN: Final = """(SELECT own.name FROM target o JOIN address own ON own.name = o.address AND own.kind = 'user'
 WHERE o.account = {}.account AND o.place = 0 LIMIT 1)"""
"""An account's own name: it is the first that it got, so that the search for it ends there, however many aliases it has."""
ADDRESSES: Final = f"""
SELECT n.name, n.kind, n.enabled, n.note, t.elsewhere, {_OWN.format("t")}, t.may_send
FROM (SELECT name, kind, enabled, note FROM address
      WHERE kind = :kind AND name > :after ORDER BY name LIMIT :count) n
LEFT JOIN target t ON t.address = n.name
ORDER BY n.name, t.place"""  # noqa: S608 - constants
"""A row for each target, at least one for each address."""
ONE_ADDRESS: Final = f"""
SELECT n.name, n.kind, n.enabled, n.note, t.elsewhere, {_OWN.format("t")}, t.may_send
FROM (SELECT name, kind, enabled, note FROM address WHERE name = :name AND kind <> 'user') n
LEFT JOIN target t ON t.address = n.name
ORDER BY t.place"""  # noqa: S608 - constants
ENTRY: Final = f"""
SELECT COALESCE({_OWN.format("t")}, t.elsewhere), t.may_send, t.account IS NOT NULL
FROM address n
JOIN target t ON t.address = n.name
WHERE n.name = :name AND n.kind <> 'user' AND n.enabled = 1
ORDER BY t.place LIMIT :count"""  # noqa: S608 - constants
ADDRESSES_OF: Final = """
SELECT n.name, n.kind
FROM target own
JOIN target t ON t.account = own.account
JOIN address n ON n.name = t.address AND n.kind <> 'user'
WHERE own.address = :name AND own.place = 0
ORDER BY n.name"""
ADDRESSES_TO: Final = """
SELECT n.name, n.kind FROM target t JOIN address n ON n.name = t.address WHERE t.elsewhere = :name ORDER BY n.name"""
ADDRESSES_ONLY_TO: Final = """
SELECT n.name, n.kind
FROM target own
JOIN target t ON t.account = own.account
JOIN address n ON n.name = t.address AND n.kind <> 'user'
WHERE own.address = :name AND own.place = 0
      AND NOT EXISTS (SELECT 1 FROM target other WHERE other.address = n.name AND other.place <> t.place)
ORDER BY n.name"""
LAST_PLACE: Final = "SELECT max(place) FROM target WHERE address = :address"
ACCOUNT_ID: Final = """
SELECT t.account FROM address n JOIN target t ON t.address = n.name WHERE n.name = :name AND n.kind = 'user'"""
ADD_TARGET_ROW: Final = """
INSERT INTO target (address, place, account, elsewhere, may_send)
VALUES (:address, :place, :account, :elsewhere, :may_send)"""
REMOVE_TARGET_ACCOUNT: Final = "DELETE FROM target WHERE address = :address AND account = :account"
REMOVE_TARGET_ELSEWHERE: Final = "DELETE FROM target WHERE address = :address AND elsewhere = :elsewhere"
SET_ADDRESS_ENABLED: Final = "UPDATE address SET enabled = :enabled WHERE name = :name"
SET_NOTE: Final = "UPDATE address SET note = :note WHERE name = :name"
ALL_ADDRESSES: Final = "SELECT name, kind, enabled, note FROM address WHERE kind <> 'user' ORDER BY name"
ALL_TARGETS: Final = """
SELECT t.address, t.account, t.elsewhere, t.may_send
FROM target t JOIN address n ON n.name = t.address AND n.kind <> 'user' ORDER BY t.address, t.place"""
OWN_NAMES: Final = "SELECT t.account, n.name FROM address n JOIN target t ON t.address = n.name WHERE n.kind = 'user'"

# domains
DOMAIN: Final = "SELECT name, alias_of, detail, limits, enabled FROM domain WHERE name = :name"
DOMAINS: Final = "SELECT name, alias_of, detail, limits, enabled FROM domain ORDER BY name"
ADD_DOMAIN: Final = """
INSERT INTO domain (name, alias_of, detail, limits, enabled) VALUES (:name, :alias_of, :detail, :limits, :enabled)"""
SET_DOMAIN: Final = """
UPDATE domain SET alias_of = :alias_of, detail = :detail, limits = :limits, enabled = :enabled WHERE name = :name"""
REMOVE_DOMAIN: Final = "DELETE FROM domain WHERE name = :name"
DOMAIN_ALIASES: Final = "SELECT name FROM domain WHERE alias_of = :name ORDER BY name"

# delegates
DELEGATES: Final = f"""
SELECT {_OWN.format("d")}, d.over, d.expires, d.why
FROM delegate d
ORDER BY 1, d.over"""  # noqa: S608 - constants
ADD_DELEGATE: Final = """
INSERT INTO delegate (account, over, expires, why) VALUES (:account, :over, :expires, :why)"""
MAY_ACT_FOR: Final = """
SELECT d.over
FROM address n
JOIN target t ON t.address = n.name
JOIN delegate d ON d.account = t.account
WHERE n.name = :account AND n.kind = 'user' AND d.over IN (:user, :domain) AND (d.expires IS NULL OR d.expires > :now)"""
NEXT_DELEGATE_EXPIRY: Final = "SELECT min(expires) FROM delegate WHERE expires > :after"
RENAME_OVER: Final = "UPDATE delegate SET over = :new WHERE over = :old"
DELETE_OVER: Final = "DELETE FROM delegate WHERE over = :name"
DELETE_DELEGATE: Final = "DELETE FROM delegate WHERE account = :account AND over = :over"

# credentials
SET_MAIN_CREDENTIAL: Final = """
UPDATE credential SET secret = :secret, scram_sha256 = :scram_sha256, scram_sha1 = :scram_sha1, created = :at,
       made_by = :who
WHERE account = :account AND kind = 'password'"""
RENEW_MAIN_CREDENTIAL: Final = """
UPDATE credential SET secret = :secret, scram_sha256 = :scram_sha256, scram_sha1 = :scram_sha1
WHERE account = :account AND kind = 'password'"""
ADD_MAIN_CREDENTIAL: Final = """
INSERT INTO credential (id, account, kind, label, secret, scram_sha256, scram_sha1, created, made_by)
VALUES (:id, :account, 'password', '', :secret, :scram_sha256, :scram_sha1, :at, :who)"""
_APP_PASSWORD: Final = f"""{_LOGIN_ROW}, p.id, p.label, p.protocols, p.expires, p.created, p.made_by
FROM credential p
JOIN account a ON a.id = p.account
JOIN target t ON t.account = a.id
JOIN address n ON n.name = t.address AND n.kind = 'user'
LEFT JOIN credential c ON c.account = a.id AND c.kind = 'password'"""
"""The columns of LOGIN_ROW, and those of the app password. As in ENTRY, the account's aliases are not searched."""
APP_PASSWORD: Final = f"""{_APP_PASSWORD}
WHERE p.probe = :probe
LIMIT 1"""
APP_PASSWORD_OF_ID: Final = f"""{_APP_PASSWORD}
WHERE p.id = :id AND p.kind = 'app'
LIMIT 1"""
APP_PASSWORDS: Final = """
SELECT c.id, n.name, a.state, c.label, c.protocols, c.expires, c.created, c.made_by,
       a.scram_sha256, a.scram_sha1, c.scram_sha256, c.scram_sha1
FROM address n
JOIN target t ON t.address = n.name
JOIN account a ON a.id = t.account
JOIN credential c ON c.account = a.id AND c.kind = 'app'
WHERE n.name = :name AND n.kind = 'user'
ORDER BY c.created, c.id"""
ADD_APP_PASSWORD: Final = """
INSERT INTO credential (id, account, kind, label, secret, probe, scram_sha256, scram_sha1, protocols, expires, created,
                        made_by)
VALUES (:id, :account, 'app', :label, '', :probe, :scram_sha256, :scram_sha1, :protocols, :expires, :at, :who)"""  # noqa: S105 - SQL
ALL_APP_PASSWORDS: Final = """
SELECT c.account, c.id, c.label, c.probe, c.protocols, c.expires, c.created, c.made_by,
       a.scram_sha256, a.scram_sha1, c.scram_sha256, c.scram_sha1
FROM credential c JOIN account a ON a.id = c.account
WHERE c.kind = 'app'"""
REMOVE_CREDENTIAL: Final = "DELETE FROM credential WHERE id = :id"
NEXT_APP_PASSWORD_EXPIRY: Final = "SELECT min(expires) FROM credential WHERE expires > :after"  # noqa: S105 - SQL
EXPIRED_APP_PASSWORDS: Final = f"""
SELECT c.id, {_OWN.format("c")}
FROM credential c
WHERE c.expires > :after AND c.expires <= :now"""  # noqa: S608 - constants
SCRAM_PARAMETERS: Final = "SELECT scram_sha256, scram_sha1 FROM account WHERE id = :id"
SET_MAIN_PROTOCOLS: Final = (
    "UPDATE credential SET protocols = :protocols WHERE account = :account AND kind = 'password'"
)
DROP_APP_SCRAM: Final = {
    "scram_sha256": """
UPDATE credential SET scram_sha256 = NULL WHERE account = :account AND kind = 'app' AND scram_sha256 IS NOT NULL""",
    "scram_sha1": """
UPDATE credential SET scram_sha1 = NULL WHERE account = :account AND kind = 'app' AND scram_sha1 IS NOT NULL""",
}
"""By the column of a hash."""
SECRETS: Final = "SELECT secret FROM credential WHERE kind = 'password' AND secret <> '' LIMIT :count"
SCRAM_SHA256: Final = "SELECT scram_sha256 FROM account WHERE scram_sha256 <> '' LIMIT :count"
SCRAM_SHA1: Final = "SELECT scram_sha1 FROM account WHERE scram_sha1 <> '' LIMIT :count"
_WITHOUT: Final = """
SELECT a.state
FROM (SELECT account FROM credential WHERE kind = 'password' AND secret <> '' AND {} IS NULL LIMIT :count) c
JOIN account a ON a.id = c.account"""
NO_SHA256: Final = _WITHOUT.format("scram_sha256")
NO_SHA1: Final = _WITHOUT.format("scram_sha1")

# the record of changes
ADD_CHANGE: Final = """
INSERT INTO change (serial, place, at, who, what, account, facts)
VALUES (:serial, :place, :at, :who, :what, :account, :facts)"""
FORGET_CHANGES: Final = "DELETE FROM change WHERE serial <= :serial"
CHANGES: Final = """
SELECT serial, place, at, who, what, account, facts FROM change
WHERE (serial, place) > (:serial, :place) ORDER BY serial, place LIMIT :count"""
CHANGE_HEAD: Final = """
SELECT at, who, what, account, facts FROM change WHERE serial = :serial ORDER BY place LIMIT 1"""
OLDEST_CHANGE: Final = "SELECT min(serial) FROM change"
