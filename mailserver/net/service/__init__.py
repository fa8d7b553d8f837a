"""The services that twistd runs: start, reload and stop of the whole server.

`tap.py` uses it. Begin with `service.py`, the part that both modes share; `single_process.py` is the mode without workers,
`net/workers/master.py` the other.
"""
