"""Listening sockets: bound from the configuration, passed by systemd, shared by workers.

`net.serving` and `net.service` use it. Begin with `binding.py`; `proxy_protocol.py` reads the PROXY header in front of
a connection.
"""
