"""Sources of users: the users file, memory, checkers of twisted.cred, and plug-ins.

`wiring/services.py` makes them by `backends.py`; `auth/plugins.py` finds their modules. `guard.py` limits the calls to each
back end that may block on something outside. Begin with `file.py`.
"""
