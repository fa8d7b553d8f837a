"""Questions to the DNS about other domains: the hosts that take a domain's mail, and their addresses.

No sockets and no Twisted: `net.outbound.dns_exchange` carries the datagrams. dnspython encodes and decodes them.
Used by what delivers mail to the world. Begin at `mail_exchange.find_mail_hosts`; `resolver` asks, `cache` remembers,
`query` has the form of one question and its answer.
"""
