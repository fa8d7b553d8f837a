"""Password schemes: parsing, verification and creation of entries, in child processes where that takes time.

`auth` and `cli` use it. Begin with `schemes.py`; `hash_pool.py` is the pool of hash processes.
"""
