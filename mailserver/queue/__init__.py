"""The durable queue of mail on its way out: spool files, rows, retry schedule, outcomes of replies, delivery reports.

Synchronous and blocking, without Twisted; it imports message, config.model, errors and types alone. `mail_queue.MailQueue`
is the interface for callers. `routing`, `dsn_parameters`, `schedule`, `outcome` and `report` are pure functions.
"""
