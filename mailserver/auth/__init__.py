"""Who may log in: names, passwords, back ends, and limits on guessing.

Protocols reach it through `service.py`. Its packages, lowest first: `throttling`, `schemes`, `backends`, `exposure`.
A plug-in implements `interfaces.py` and tests itself with `conformance.py`. Begin with `service.py`.
"""
