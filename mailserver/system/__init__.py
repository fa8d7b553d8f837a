"""The operating system's part: becoming another user, child processes, files replaced atomically.

Any package may use it. No Twisted here. Begin with `atomic_file.py`.
"""
