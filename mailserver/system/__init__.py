"""The operating system: becoming another user, child processes, atomic replacement of files.

Any package may use it. No Twisted here. Begin with `atomic_file.py`.
"""
