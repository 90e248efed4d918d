"""A tool server (MCP over stdio) of a few lines, run inside sandboxes: it appends notes to a file."""

SERVER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    method = asked["method"]
    if method == "initialize":
        version = asked["params"]["protocolVersion"]
        answer = {"protocolVersion": version, "capabilities": {"tools": {}},
                  "serverInfo": {"name": "notes", "version": "1"}}
    elif method == "tools/list":
        answer = {"tools": [{"name": "note", "description": "Keeps a note",
                  "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}]}
    elif method == "tools/call":
        with open("/workspace/notes.txt", "a") as notes:
            notes.write(asked["params"]["arguments"]["text"] + sys.argv[1])
        answer = {"content": [{"type": "text", "text": "kept"}]}
    else:
        answer = {}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
"""
