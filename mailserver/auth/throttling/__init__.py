"""Limits on guessed passwords that do not lock a user out: delays, turns, known networks.

`auth/service.py` asks here before a password is checked. Begin with `attempts.py`.
"""
