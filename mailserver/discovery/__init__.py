"""Client configuration documents and DNS records of a domain, made from the configuration alone.

`http` serves the documents, `cli/dns.py` prints and checks the records. Nothing here connects or reads a file. Begin with
`services.py`, which lists a domain's services.
"""
