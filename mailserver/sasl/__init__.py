"""SASL mechanisms without I/O."""
