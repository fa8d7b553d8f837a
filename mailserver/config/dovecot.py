"""The equivalents of Dovecot's TLS settings, by their old and new names. `dovecot_mail` has the other settings.

A configuration with a name of Dovecot's is refused with a reference to ours. docs/tls-from-dovecot.md contains the same
table, and a test compares them.
"""

from __future__ import annotations

from typing import Final

from mailserver.config.dovecot_mail import MAIL

_CERTIFICATE = "certificate of a [[domain]]"
_KEY = "key of a [[domain]]"
_CIPHERS = "ciphers of [tls] or a [[domain]]"
_ORDER = "cipher_order of [tls] or a [[listener]]"
_LEAST = "minimum_version of [tls], a [[listener]], a [[domain]] or [submission.relay]"
_ASKED = 'client_certificates = "asked" or "required" of a [[domain]]'
_CLEARTEXT = "auth_allow_cleartext of a [[listener]]"
_TLS_KIND = 'protocol of a [[listener]]: "imaps" is implicit TLS, "imap" STARTTLS'

HERE: Final[dict[str, str]] = {
    # TLS and logins before it.
    "ssl": f"ssl of a [[listener]], with Dovecot's meaning; {_TLS_KIND}",
    "auth_allow_cleartext": f"{_CLEARTEXT}, together with ssl",
    "disable_plaintext_auth": f"{_CLEARTEXT}, inverted, together with ssl",
    "login_trusted_networks": f"networks are never trusted: {_CLEARTEXT} at an address in it, proxy_from for proxies",
    "haproxy_trusted_networks": "proxy_from of a [[listener]]",
    "haproxy_timeout": "login_time of [limits]",
    # Certificates of the server.
    "ssl_cert": _CERTIFICATE,
    "ssl_key": _KEY,
    "ssl_server_cert_file": _CERTIFICATE,
    "ssl_server_key_file": _KEY,
    "ssl_alt_cert": "second_certificate of a [[domain]]",
    "ssl_alt_key": "second_key of a [[domain]]",
    "ssl_server_alt_cert_file": "second_certificate of a [[domain]]",
    "ssl_server_alt_key_file": "second_key of a [[domain]]",
    "ssl_key_password": "key_password_file or key_password_command of a [[domain]]",
    "ssl_server_key_password": "key_password_file or key_password_command of a [[domain]]",
    # Certificates of clients.
    "ssl_ca": "client_ca and client_crl of a [[domain]], two files in any order",
    "ssl_server_ca_file": "client_ca and client_crl of a [[domain]], two files in any order",
    "ssl_require_crl": "client_crl of a [[domain]]: with the file lists are required, without it not checked",
    "ssl_server_require_crl": "client_crl of a [[domain]]: with the file lists are required, without it not checked",
    "ssl_verify_client_cert": _ASKED,
    "ssl_request_client_cert": _ASKED,
    "ssl_server_request_client_cert": f"{_ASKED}; instead of any-cert use a private authority",
    "auth_ssl_require_client_cert": 'client_certificates = "required" of a [[domain]]; with client_user = "any" where '
    "certificates need not name the user",
    "auth_ssl_username_from_cert": "client_user of a [[domain]], and EXTERNAL among mechanisms of [auth]",
    "ssl_cert_username_field": "client_user of a [[domain]]",
    "ssl_server_cert_username_field": "client_user of a [[domain]]",
    "ssl_peer_certificate_fingerprint_hash": "always SHA-256, in the log's line client-certificate",
    # Versions, suites, groups.
    "ssl_min_protocol": _LEAST,
    "ssl_protocols": _LEAST,
    "ssl_cipher_list": _CIPHERS,
    "ssl_cipher_suites": "ciphersuites of [tls] or a [[listener]]",
    "ssl_curve_list": "groups of [tls] or a [[listener]]",
    "ssl_prefer_server_ciphers": _ORDER,
    "ssl_server_prefer_ciphers": _ORDER,
    "ssl_dh": "nothing: key exchange uses ECDHE with the groups of [tls]",
    "ssl_server_dh_file": "nothing: key exchange uses ECDHE with the groups of [tls]",
    "ssl_dh_parameters_length": "nothing: key exchange uses ECDHE with the groups of [tls]",
    "ssl_parameters_regenerate": "nothing: key exchange uses ECDHE with the groups of [tls]",
    "ssl_options": "tickets = false of [tls] or a [[listener]] for no_ticket; compression is always off",
    "ssl_crypto_device": "nothing: OpenSSL has no engines any more",
    "verbose_ssl": "nothing: each failed handshake has its line tls-failed in the log, with the reason",
    # TLS of outgoing connections.
    "ssl_client_ca_file": "ca_file of [submission.relay]",
    "ssl_client_ca_dir": "ca_file of [submission.relay]; without it the system's authorities",
    "ssl_client_cert": "certificate of [submission.relay]",
    "ssl_client_key": "key of [submission.relay]",
    "ssl_client_cert_file": "certificate of [submission.relay]",
    "ssl_client_key_file": "key of [submission.relay]",
    "ssl_client_key_password": "key_password_file of [submission.relay]",
    "ssl_client_require_valid_cert": 'verification of [submission.relay], "required" by default',
    "submission_relay_ssl": "tls of [submission.relay]",
    "submission_relay_ssl_verify": "verification of [submission.relay]",
    "submission_ssl": "nothing: there is no submission proxy",
    "doveadm_ssl": "nothing: the administrator's command uses a Unix socket",
    "imapc_ssl": "nothing: mail is not fetched from other servers",
    "imapc_ssl_verify": "nothing: mail is not fetched from other servers",
    "pop3c_ssl": "nothing: mail is not fetched from other servers",
    "pop3c_ssl_verify": "nothing: mail is not fetched from other servers",
    "http_client_proxy_ssl_tunnel": "nothing: no proxy is used",
    "ldap_starttls": "nothing here: a back end's own argument in backends of [auth]",
    "mysql_ssl": "nothing here: a back end's own argument in backends of [auth]",
    "cassandra_ssl": "nothing here: a back end's own argument in backends of [auth]",
    "inet_listener_ssl": _TLS_KIND,
    # Blocks.
    "ssl_server": "[tls], [[domain]] and [[listener]] have its settings directly",
    "ssl_client": "[submission.relay]",
    "local_name": "a [[domain]] for each name, with hosts and certificate; their order does not matter",
    "local": "a [[listener]] with addresses; its default names the host whose certificate is served without SNI",
    "remote": "nothing: no setting depends on the client's address, but proxy_from of a [[listener]]",
    "protocol": "a [[listener]] of that protocol, and the table [imap], [pop3], [submission] or [lmtp]",
}
"""Dovecot's name -> ours, or what replaces it."""


def instead(name: str) -> str:
    """The equivalent of a Dovecot setting; "" for any other word."""
    return HERE.get(name) or MAIL.get(name, "")


def table() -> str:
    """The rows of docs/tls-from-dovecot.md, Markdown."""
    rows = [f"| `{name}` | {words} |" for name, words in HERE.items()]
    return "\n".join(["| Dovecot | here |", "|---|---|", *rows])
