"""The parser of SEARCH keys, and the part of a SEARCH that is answered from memory.

Used by `imap.commands.search`, which asks the store for the rest. Begin with `keys.py`.
"""
