"""The files of a Maildir as Dovecot writes them: names, keywords, uidlist, uidvalidity, subscriptions.

All of `store.maildir` above `disk` uses it. It parses and writes one file each and decides nothing. Begin with `filename.py`.
"""
