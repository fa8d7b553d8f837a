"""Limits on password guessing that do not lock a user out: delays, semaphores, rates, known networks.

`auth/service.py` begins an attempt here before it checks a password; `net/serving/state_sync.py` shares the tables between
workers. Begin with `login_throttle.py`.
"""
