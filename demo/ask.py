"""The demo's agent where Codex is not installed: asks the model on the sandbox's own loopback, and keeps its answer.

It runs inside a sandbox as the agent `command`: the task comes on its input, and it holds no key.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request

body = json.dumps({"model": "stand-in", "messages": [{"role": "user", "content": sys.stdin.read()}]}).encode()
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
with urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"})) as answer:
    said = json.load(answer)["choices"][0]["message"]["content"]
with open("hello.py", "w") as file:
    file.write(said + "\n")
print(subprocess.run([sys.executable, "hello.py"], capture_output=True, text=True, check=True).stdout, end="")
