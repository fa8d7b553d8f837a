"""The administrator's command `mailserver`, by click: one module a command or group of commands.

`root.py` lists the commands. A command reads the configuration (`options.py`), works on files, or asks the running server
over its control socket (`control.py`). Nothing imports this package. Begin with `root.py`.
"""

from mailserver.cli.root import main

__all__ = ["main"]
