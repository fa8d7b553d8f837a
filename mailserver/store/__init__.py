"""Mail on disk and in memory, without a protocol."""
