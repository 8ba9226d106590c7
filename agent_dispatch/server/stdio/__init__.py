"""The stdio transport: the wire, the front door, lines, and messages of the MCP library."""
