"""The floor for a server in Python: answers every request with the same short list of tools."""

import json
import sys

TOOLS = [{"name": "echo", "description": "Answers.", "inputSchema": {"type": "object"}}]
RESULT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "echo", "version": "1"},
    "tools": TOOLS,
    "content": [{"type": "text", "text": "echo"}],
}

for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": RESULT}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
