"""Password schemes: hashes are parsed, checked and made, in processes of their own where that takes time.

`auth` and `cli` use it. Begin with `schemes.py`; `hashing.py` is the pool of hash processes.
"""
