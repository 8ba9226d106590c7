"""A fake `claude` program: the commands that `init` and `doctor` use, and their failures.

It behaves as measured with Claude Code 2.1.330. `FAKE_CLAUDE` lists failures, separated by commas.
"""

import json
import os
import sys
import time
from pathlib import Path


def main(argv: list[str]) -> int:
    faults = set(filter(None, os.environ.get("FAKE_CLAUDE", "").split(",")))
    home = Path(os.environ["HOME"])
    with (home / "claude-calls").open("a") as calls:
        calls.write(json.dumps({"argv": argv, "cwd": str(Path.cwd())}) + "\n")
    if sys.stdin.read():
        raise AssertionError("stdin is not empty")
    if "hang" in faults:
        time.sleep(60)
    match argv:
        case ["--version"]:
            say(os.environ.get("FAKE_VERSION", "2.1.330 (Claude Code)"))
        case ["auth", "status", "--json"]:
            return auth_status(faults)
        case ["mcp", "add-json", name, document, "--scope", "user"]:
            return add(home / ".claude.json", name, document, faults)
        case ["mcp", "remove", name, "--scope", "user"]:
            return remove(home / ".claude.json", name, faults)
        case _:
            complain(f"error: unknown command {argv}")
            return 1
    return 0


def auth_status(faults: set[str]) -> int:
    if "old-auth" in faults:
        complain("error: unknown command 'auth'")
        return 1
    logged_in = "logged-out" not in faults
    say(json.dumps({"loggedIn": logged_in, "authMethod": "api_key", "apiProvider": "firstParty"}))
    return 0 if logged_in else 1


def add(path: Path, name: str, document: str, faults: set[str]) -> int:
    registration = json.loads(document)
    if "add" in faults and registration.get("alwaysLoad"):
        complain("Configuration error: cannot write")
        return 1
    if "restore" in faults:
        complain("Configuration error: cannot write")
        return 1
    config = json.loads(path.read_text()) if path.exists() else {}
    servers = config.setdefault("mcpServers", {})
    if name in servers or "exists" in faults:
        complain(f"MCP server {name} already exists in user config")
        return 1
    servers[name] = registration
    path.write_text(json.dumps(config))
    say(f"Added stdio MCP server {name} to user config")
    return 0


def remove(path: Path, name: str, faults: set[str]) -> int:
    config = json.loads(path.read_text())
    if "remove" in faults:
        complain("Configuration error: locked")
        return 1
    del config["mcpServers"][name]
    path.write_text(json.dumps(config))
    say(f"Removed MCP server {name} from user config")
    return 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
