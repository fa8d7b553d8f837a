"""The objects of a process that serves, made from its configuration: the only place that wires the parts together.

`tap.py`, `net.service` and the zygote call it. Begin with `services.py`; `logins.py` and `http.py` are its parts for
logins and HTTP, `mail_store.py` makes the store, `reload_check.py` checks a new configuration before it is used.
"""
