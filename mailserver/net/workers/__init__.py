"""The server with worker processes: the master, the zygote that forks, and the workers.

`tap.py` starts the master, `mailserver.zygote` the zygote. Begin with `master.py`; `supervisor.py` has its rules without
any process, `worker.py` is what a worker runs.
"""
