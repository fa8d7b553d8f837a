"""Final delivery of messages to users here: which mailbox, which fields before the message, all copies or none.

Sessions file by it. It knows no protocol, no socket and no Twisted.
"""
