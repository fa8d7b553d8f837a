"""The listeners of one process with the objects behind them: opened, changed at a reload, closed.

`net.service` (one process) and `net.workers` (each worker) use it. Begin with `serving.py`; `state_sync.py` is what
workers share so that limits and penalties hold over all of them.
"""
