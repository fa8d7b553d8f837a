"""The configuration: typed, frozen values from TOML, every problem reported at once."""
