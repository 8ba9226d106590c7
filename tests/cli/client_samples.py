"""Configuration files of MCP clients as their users have them, with comments and other servers."""

import sys

_APPLICATIONS = "Library/Application Support" if sys.platform == "darwin" else ".config"

CURSOR = """\
{
  "mcpServers": {
    "github": {
      "command": "npx",
      "args": ["-y", "@modelcontextprotocol/server-github"],
      "env": { "GITHUB_TOKEN": "${env:GITHUB_TOKEN}" }
    },
    "docs": { "url": "https://example.com/mcp" }
  }
}
"""

VSCODE = """\
{
\t// Servers for all of my workspaces.
\t"inputs": [
\t\t{ "type": "promptString", "id": "key", "description": "API key", "password": true },
\t],
\t"servers": {
\t\t"playwright": {
\t\t\t"type": "stdio",
\t\t\t"command": "npx",
\t\t\t"args": ["@playwright/mcp@latest"], // pinned elsewhere
\t\t},
\t},
}
"""

CODEX = """\
# Codex
model = "gpt-5.5-codex"
approval_policy = "on-request"

[mcp_servers.docs]   # mine
command = "npx"
args = ["-y", "docs-mcp"]
env = { "DOCS_KEY" = "abc" }

[projects."/home/me/work"]
trust_level = "trusted"
"""

GEMINI = """\
{
  "general": { "vimMode": true },
  "security": { "auth": { "selectedType": "oauth-personal" } },
  "mcpServers": {
    "files": { "command": "node", "args": ["/opt/files.js"], "timeout": 15000, "trust": true }
  }
}
"""

OPENCODE = """\
{
  "$schema": "https://opencode.ai/config.json",
  "theme": "system", // follows the terminal
  "mcp": {
    "everything": {
      "type": "local",
      "command": ["npx", "-y", "@modelcontextprotocol/server-everything"],
      "enabled": false,
    },
  },
}
"""

ZED = """\
// Zed settings
//
// For information on how to configure Zed, see the Zed documentation.
{
  "theme": { "mode": "system", "light": "One Light", "dark": "One Dark" },
  "context_servers": {
    "some-server": {
      "command": "/opt/some-server",
      "args": [],
      "env": {},
    },
  },
  "buffer_font_size": 15,
  // "vim_mode": true,
}
"""

DESKTOP = """\
{
  "globalShortcut": "",
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": ["-y", "@modelcontextprotocol/server-filesystem", "/Users/me/Desktop"]
    }
  }
}"""

SAMPLES = {
    "cursor": (".cursor/mcp.json", CURSOR),
    "vscode": (f"{_APPLICATIONS}/Code/User/mcp.json", VSCODE),
    "codex": (".codex/config.toml", CODEX),
    "gemini": (".gemini/settings.json", GEMINI),
    "opencode": (".config/opencode/opencode.json", OPENCODE),
    "zed": (".config/zed/settings.json", ZED),
    "desktop": (f"{_APPLICATIONS}/Claude/claude_desktop_config.json", DESKTOP),
}
"""Client -> its file below the home directory, and what is in it."""
