"""Changes to Maildirs by other programs, noticed by inotify.

A process that serves has one `watcher.Watcher`, which pokes the open mailboxes; `wiring.services` makes it. Begin with
`watcher.py`; `inotify.py` is the kernel's interface on the reactor.
"""
