"""Commands about agents and groups: what is in `agents.toml`."""
