"""Where users come from: the users file, memory, and the plug-ins of others.

`wiring/logins.py` opens them. Begin with `plugins.py`, which finds them; `guard.py` limits each back end that is not ours.
"""
