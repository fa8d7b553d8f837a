"""The Twisted side of the server: connections, listeners, processes and the services that twistd runs.

Nothing outside `net`, `wiring` and `tap` imports it. Its packages, lowest first: `log`, `ipc`, `transport`, `connection`, `fast`,
`outbound`, `listeners`, `admin`, `certificates`, `serving`, `service`, `workers`; each imports only those before it.
Begin with `connection/connection.py` for one client, with `service/single_process.py` for the whole server.
"""
