"""Communication between the master, the zygote and the workers: frames, messages, pokes, passed descriptors.

`net.serving`, `net.service` and `net.workers` use it; protocols and the store do not know that there are workers.
Begin with `frames.py` for the transport, `master_messages.py` for what is sent, `link.py` for a worker's view of the others.
"""
