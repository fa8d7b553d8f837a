"""Settings of the Dovecot that is measured, as an experienced administrator would choose them for one machine.

By default it starts a new `imap` process for each session, one after another, so that in a load of many short sessions
clients wait in the login for seconds. Processes that are there before they are needed and serve one session after the
other, which its documentation allows where all mail is one system user's, take that away.
"""

from __future__ import annotations

_SERVICE = """\
service {name} {{
  process_min_avail = {ready}
  restart_request_count = 1000
}}
"""

_MANY = """\
default_vsz_limit = unlimited
service stats {
  client_limit = 20000
}
"""
"""Room for ten thousand connections and a million messages: by default a process may have 256 MiB, which is full
at 2,270 connections of a login process."""

MORE_PORTS = """\
service pop3-login {{
  inet_listener pop3s {{
    port = {pop3s}
  }}
}}
service submission-login {{
  inet_listener submissions {{
    port = {submissions}
  }}
}}
"""
"""Ports that only loads over TLS use."""

TUNED = _MANY + "".join(
    _SERVICE.format(name=name, ready=ready)
    for name, ready in (("imap", 8), ("pop3", 4), ("submission", 4), ("lmtp", 2))
)
"""Processes are kept, and used again."""

HIBERNATING = """\
imap_hibernate_timeout = 2s
service imap {
  process_min_avail = 0
  restart_request_count = 1
  unix_listener imap-master {
    user = $SET:default_internal_user
  }
}
service imap-hibernate {
  client_limit = 20000
}
"""
"""Connections in IDLE leave their process after two seconds, and it ends."""
