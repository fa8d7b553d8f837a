"""Changes of the served certificates: transactions, rollback, and the trial handshake before activation.

`net/certificates` and `cli/cert.py` use it. Begin with `transaction.py`.
"""
