"""HTTP/1.1 for documents that clients and administrators fetch: sans-IO, a session beside those of the mail protocols.

`wiring/http.py` builds its services. A page is a module with ROUTES: `messages`, `services`, `route`, the pages, `routes`
and `session` each import only those before. Begin with `routes.py`, the table of paths.
"""
