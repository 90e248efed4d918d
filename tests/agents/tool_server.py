"""A tool server (MCP) of a few lines, run inside sandboxes, over stdio or HTTP: it appends notes to a file."""

from __future__ import annotations

SERVER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

def answer(asked):
    method = asked["method"]
    if method == "initialize":
        version = asked["params"]["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}},
                "serverInfo": {"name": "notes", "version": "1"}}
    if method == "tools/list":
        return {"tools": [{"name": "note", "description": "Keeps a note",
                "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}]}
    if method == "tools/call":
        with open("/workspace/notes.txt", "a") as notes:
            notes.write(asked["params"]["arguments"]["text"] + sys.argv[1])
        return {"content": [{"type": "text", "text": "kept"}]}
    return {}

def answered(asked):
    return json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer(asked)})

class Http(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = answered(asked).encode() if "id" in asked else b""
        self.send_response(200 if body else 202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send_error(405)

if len(sys.argv) > 2:
    HTTPServer(("127.0.0.1", int(sys.argv[2])), Http).serve_forever()
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        print(answered(asked), flush=True)
"""
