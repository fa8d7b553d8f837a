"""What clients and other mail servers are told of a domain, made from its configuration: documents and DNS records."""
