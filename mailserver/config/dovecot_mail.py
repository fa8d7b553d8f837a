"""Dovecot's settings of mail, users and services, and their equivalents here. docs/from-dovecot.md has the table.

`dovecot` has the TLS settings.
"""

from __future__ import annotations

from typing import Final

_SIEVE: Final = "nothing: there is no Sieve; mail is filed by the MTA, or by the detail of an address (user+folder)"
_ACL: Final = "nothing: there are no shared mailboxes and no ACLs; each account is its user's alone"
_METADATA: Final = (
    "nothing: METADATA is always served; what Dovecot keeps in dovecot-attributes stays there, and is not seen"
)
_LOCATION: Final = "root and location of [mail]: a template, such as {root}/{domain}/{local}/Maildir, or {home}/Maildir"
_OWNER: Final = "user and group of [server]: all mail belongs to one system user"
_BACKEND: Final = "backends of [auth]: a passwd-file is read as it is, file:PATH"
_LISTENER: Final = "a [[listener]] for each protocol, port or Unix socket"
_TIMES: Final = "timeout of [imap], [pop3], [submission] or [lmtp]"
_RELAY: Final = "host, port, user and password_file of [submission.relay]"
_ALWAYS: Final = "nothing: every change is synced before it is acknowledged, and index files are not mapped"

MAIL: Final[dict[str, str]] = {
    # Location of mail.
    "mail_location": _LOCATION,
    "mail_path": _LOCATION,
    "mail_home": "{home} in location of [mail], which takes it from the users file",
    "mail_inbox_path": "nothing: INBOX is the Maildir itself",
    "mail_driver": "nothing: mail is kept in Maildirs alone; `doveadm sync` or `dsync` turns other formats into one",
    "mail_uid": _OWNER,
    "mail_gid": _OWNER,
    "mail_privileged_group": _OWNER,
    "first_valid_uid": _OWNER,
    "last_valid_uid": _OWNER,
    "namespace": "separator and prefix of [mail]: there is one namespace",
    "mailbox_list_layout": "nothing: folders are laid out as in Maildir++",
    "mailbox_list_utf8": "utf8_names of [mail]",
    "mailbox_list_storage_escape_char": "escape of [mail], the same character",
    "mailbox_list_index": "nothing: the index is automatic",
    "mailbox": 'special_use of [mail], such as { Sent = ["Gesendet", "Sent"] }',
    "lda_mailbox_autocreate": "nothing: mail for a folder that does not exist goes to INBOX",
    "mail_fsync": _ALWAYS,
    "mmap_disable": _ALWAYS,
    "mail_nfs_storage": _ALWAYS,
    "mail_nfs_index": _ALWAYS,
    # Limits.
    "quota_rule": "storage and messages of [quota], in one key each",
    "quota_storage_size": "storage of [quota]; the field of a users file works as it is",
    "quota_message_count": "messages of [quota]; the field of a users file works as it is",
    "quota_mailbox_count": "mailboxes of [quota]; the field of a users file works as it is",
    "quota_mailbox_message_count": "messages_per_mailbox of [limits], for all users",
    "quota_storage_grace": "nothing: nothing is added beyond the limit, except by other programs",
    "quota_storage_extra": "nothing: all folders share the limits",
    "quota_ignore": "nothing: all folders share the limits",
    "quota_warning": "warnings of [quota]: the server itself sends the mail",
    "quota_max_mail_size": "max_message_size of [mail]",
    "quota_full_tempfail": "when_full of [quota]",
    # Features that do not exist here.
    "sieve": _SIEVE,
    "sieve_script": _SIEVE,
    "acl": _ACL,
    "acl_driver": _ACL,
    "mail_attribute": _METADATA,
    "mail_attribute_dict": _METADATA,
    "imap_metadata": _METADATA,
    "mail_plugins": "nothing: there are no plugins of the mail store",
    "plugin": "nothing: there are no plugins of the mail store",
    "fts": "search_index of [mail]",
    "fts_autoindex": "search_index of [mail]",
    "dict": "nothing: there are no dictionaries",
    # Users.
    "passdb": _BACKEND,
    "userdb": _BACKEND,
    "passwd_file_path": _BACKEND,
    "auth_mechanisms": "mechanisms of [auth]",
    "auth_default_realm": "default_domain of [auth]",
    "auth_default_domain": "default_domain of [auth]",
    "auth_username_format": "nothing: names are in lower case, with a domain if the users file has one",
    "auth_failure_delay": "failure_delay of [auth]",
    "auth_verbose": "nothing: each failed login has its line in the log, with the reason",
    "auth_master_user_separator": "nothing: there are no master users",
    # Services.
    "protocols": _LISTENER,
    "listen": "addresses of a [[listener]]",
    "service": _LISTENER,
    "inet_listener": _LISTENER,
    "unix_listener": "socket of a [[listener]]",
    "base_dir": "runtime_dir of [server]",
    "log_path": "log_file of [server]",
    "info_log_path": "log_file of [server]",
    "debug_log_path": "log_file of [server]",
    "mail_debug": "nothing: the log has no debug setting",
    "login_greeting": "nothing: the greeting names the host",
    "default_internal_user": "user of [server]",
    "default_login_user": "user of [server]",
    "mail_max_userip_connections": "sessions_per_user of [limits]",
    "imap_max_line_length": "max_line of [imap]",
    "imap_idle_notify_interval": "idle_notice of [imap]",
    "imap_logout_format": "nothing: the format of the logout line is fixed",
    "imap_client_workarounds": "nothing: these clients work without workarounds",
    "pop3_client_workarounds": "nothing: these clients work without workarounds",
    "pop3_uidl_format": "uidl_format of [pop3], in either notation, without %m and %{md5}",
    "pop3_save_uidl": "nothing: unique-ids in dovecot-uidlist are used; new ones never change",
    "pop3_reuse_xuidl": "nothing: the field X-UIDL is ignored",
    "pop3_no_flag_updates": "nothing: retrieved messages are flagged as seen",
    "client_idle_timeout": _TIMES,
    "postmaster_address": "postmaster of [mail]",
    "recipient_delimiter": "detail_separator of [lmtp]",
    "lmtp_save_to_detail_mailbox": "detail_separator of [lmtp]: the detail names the folder",
    "lmtp_user_concurrency_limit": "nothing: deliveries to one account are made one after the other",
    "submission_relay_host": _RELAY,
    "submission_relay_port": _RELAY,
    "submission_relay_user": _RELAY,
    "submission_relay_password": _RELAY,
    "submission_max_mail_size": "max_message_size of [mail]",
    "submission_max_recipients": "max_recipients of [submission]",
    "dovecot_config_version": "nothing: this file has no version",
    "dovecot_storage_version": "nothing: every version reads the files on disk",
}
"""Dovecot's name -> ours, or what replaces it."""


def table() -> str:
    """The rows of docs/from-dovecot.md, Markdown."""
    rows = [f"| `{name}` | {words.replace('|', chr(92) + '|')} |" for name, words in MAIL.items()]
    return "\n".join(["| Dovecot | here |", "|---|---|", *rows])
