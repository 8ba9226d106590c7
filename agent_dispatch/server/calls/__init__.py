"""One call, from its arguments to its answer; knows nothing of the MCP library."""
