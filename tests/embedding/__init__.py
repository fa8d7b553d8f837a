"""The protocols in other Twisted programs: on every kind of endpoint, and beside other services."""
