"""Log output: the format of a line, where it is written, and limits on repeated lines.

All of `net` uses it. Parts that may not import Twisted log with the standard library's `logging`, which
`forwarding.py` passes on. Begin with `events.py`.
"""
