"""Configuration files: TOML with places, checked with pydantic, every mistake told with file, line and remedy."""
