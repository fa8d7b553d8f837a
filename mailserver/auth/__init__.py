"""Authentication: names, passwords, back ends, and limits on guessing.

Protocols reach it through `service.py`. Its packages, lowest first, are `throttling`, `schemes`, `backends` and `exposure`.
A plug-in implements `interfaces.py`, and `conformance.py` tests it. Begin with `service.py`.
"""
