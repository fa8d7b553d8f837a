"""Durable changes on disk: files, directories and locks, with every fsync that a power cut asks for.

All of `store.maildir` writes through it. It knows no Maildir. Begin with `safeio.py`.
"""
