"""Administration of a running server: sessions, status, exposed passwords, the client ledger.

`net.serving`, `net.certificates` and `net.service` use it. Begin with `control_socket.py`, the socket that the
`mailserver` command connects to; `admin_queries.py` has the commands that concern all workers.
"""
