"""Connections to other servers: the next hop of submission, the hops of the queue, and resolvers.

`dialer` connects to the next hop; `wiring` gives it to SMTP sessions as an interface, and `smtp/hop.py` speaks the protocol.
`dns_exchange` carries questions to resolvers. No server sends mail of the queue yet; begin with `queue_runner` there:

queue_runner           looks for destinations that are due, and has workers send their messages
active_destination     the messages and the number of connections of a destination
destination_worker     one message after another, from the spooled file to the recorded result
transaction_semaphore  how many transactions run at once
result_writer          results that meet share a commit
queue_upkeep           what the queue needs beside tries
mx_hosts, place        where the mail of a way goes
hop_connector          opens sessions
hop_pool               keeps them
"""
