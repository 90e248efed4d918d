"""Capabilities: a sandbox reaches the server's own API with no key inside, and no more of it than it was given."""

from __future__ import annotations

import json

from tests.e2e.machine import until
from tests.e2e.server import Server

ASK = """
import json, os, sys, urllib.request, urllib.error
method, path, body = sys.argv[1], sys.argv[2], sys.argv[3].encode() if len(sys.argv) > 3 else None
headers = dict(one.split("=", 1) for one in sys.argv[4:])
request = urllib.request.Request(os.environ["ATOLL_URL"] + path, body, headers, method=method)
try:
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(json.dumps([answer.status, json.loads(answer.read() or b"null")]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.loads(error.read() or b"null")]))
"""
PROBE = """curl -s -m 5 -o /dev/null -w '%{http_code}\\n' "$ATOLL_URL/v1/sessions"; cat /etc/resolv.conf"""


def create(server: Server, **more: object) -> str:
    answer = server.http.post("/v1/sessions", json={"image": "host", "network": "none", **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def ask(server: Server, session: str, method: str, path: str, *more: str) -> tuple[int, object]:
    """What the API answers to a program inside."""
    argv = ["python3", "-c", ASK, method, path, *more]
    answer = server.http.post(f"/v1/sessions/{session}/exec", json={"command": argv}).json()
    assert answer["exitCode"] == 0, answer
    status, body = json.loads(answer["stdout"])
    return status, body


def test_a_program_inside_uses_the_api_without_a_key_and_with_no_more_than_it_was_given(server: Server) -> None:
    other = create(server)
    session = create(server, capability={"scopes": ["read"]})
    status, body = ask(server, session, "GET", "/v1/sessions")
    assert status == 200
    assert {one["id"] for one in body["sessions"]} >= {session, other}  # type: ignore[index]
    assert ask(server, session, "POST", "/v1/sessions", '{"image": "host"}')[0] == 403
    assert ask(server, session, "DELETE", f"/v1/sessions/{other}")[0] == 403
    environment = server.http.post(f"/v1/sessions/{session}/exec", json={"command": ["env"]}).json()["stdout"]
    assert "ATOLL_URL=http://127.0.0.1:" in environment
    assert "sk_" not in environment


def test_a_bounded_capability_does_not_know_that_others_exist(server: Server) -> None:
    other = create(server)
    session = create(server, capability={"scopes": ["read", "execute"], "resources": []})
    assert ask(server, session, "GET", f"/v1/sessions/{other}") == ask(server, session, "GET", "/v1/sessions/sess_0")
    assert ask(server, session, "GET", f"/v1/sessions/{session}")[0] == 200


def test_no_header_makes_a_program_somebody_else(server: Server) -> None:
    session = create(server, capability={"scopes": ["read"]})
    key = f"Authorization=Bearer {server.key}"
    assert ask(server, session, "POST", "/v1/sessions", '{"image": "host"}', key)[0] == 403
    for name in ("X-Forwarded-For=127.0.0.1", "X-API-Key=nonsense", "Forwarded=for=127.0.0.1"):
        assert ask(server, session, "GET", f"/v1/sessions/{session}", "", name)[0] == 200


def test_without_a_capability_there_is_no_api_inside(server: Server) -> None:
    session = create(server)
    look = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 980)))"
    answer = server.http.post(f"/v1/sessions/{session}/exec", json={"command": ["python3", "-c", look]}).json()
    assert answer["stdout"].strip() == "111"


def test_a_capability_is_no_more_than_its_giver_has_and_ends_with_its_key(server: Server) -> None:
    key_id, key = server.new_key("--scope", "execute", "--scope", "read")
    with server.client(key) as giver:
        body: dict[str, object] = {"image": "host", "network": "none", "capability": {"scopes": ["write"]}}
        refused = giver.post("/v1/sessions", json=body)
        assert refused.status_code == 400 and "capability" in refused.text
        # it asks until it is refused, and then ends its session, which nobody else could
        script = """
import os, time, urllib.request, urllib.error
while True:
    try:
        urllib.request.urlopen(os.environ["ATOLL_URL"] + "/v1/sessions", timeout=10).read()
    except urllib.error.HTTPError as error:
        assert error.code == 401
        break
    time.sleep(0.2)
"""
        body |= {"capability": {"scopes": ["read"]}, "command": ["python3", "-c", script]}
        session = giver.post("/v1/sessions", json=body).json()["id"]
        folder = server.data / "run" / "sandboxes" / session
        assert folder.exists()
        server.cli("keys", "revoke", key_id)
        until(lambda: not folder.exists(), within_s=5.0)


def test_a_websocket_goes_through_the_gate(server: Server) -> None:
    session = create(server, capability={"scopes": ["read", "execute"]})
    script = f"""
import base64, os, socket
sock = socket.create_connection(("127.0.0.1", int(os.environ["ATOLL_URL"].rpartition(":")[2])))
sock.sendall((
    "GET /v1/sessions/{session}/exec?cmd=echo&cmd=through HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\n"
    "Connection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\n"
    "Sec-WebSocket-Key: " + base64.b64encode(bytes(16)).decode() + "\\r\\n\\r\\n"
).encode())
data = b""
while b"through" not in data:
    piece = sock.recv(65536)
    assert piece, data
    data += piece
print(data.split(b"\\r\\n")[0].decode())
"""
    answer = server.exec(session, "python3", "-c", script)
    assert "101" in answer["stdout"], answer


def test_the_gate_is_there_again_after_a_restart_of_the_server(mortal: Server) -> None:
    session = create(mortal, capability={"scopes": ["read"]})
    assert ask(mortal, session, "GET", f"/v1/sessions/{session}")[0] == 200
    mortal.kill()
    mortal.start()
    assert ask(mortal, session, "GET", f"/v1/sessions/{session}")[0] == 200


def test_the_command_line_gives_lists_and_capabilities(server: Server) -> None:
    done = server.cli("run", "--rm", "--allow", "pypi.org", "--capability", "read", "--", "sh", "-c", PROBE)
    assert done.stdout.split() == [b"200", b"nameserver", b"127.0.0.1"]


def test_a_list_is_changed_over_http_and_shown(server: Server) -> None:
    session = create(server, network={"allow": ["pypi.org"]})
    assert server.session(session)["network"]["allow"] == ["pypi.org"]
    changed = server.http.put(f"/v1/sessions/{session}/network", json={"allow": ["*.example.org", "1.1.1.1"]})
    assert changed.status_code == 200 and changed.json()["network"]["allow"] == ["*.example.org", "1.1.1.1"]
    for wrong in ("10.0.0.0/8", "127.0.0.1", "localhost", "a b", "http://pypi.org", "*x.org"):
        refused = server.http.put(f"/v1/sessions/{session}/network", json={"allow": [wrong]})
        assert refused.status_code == 400 and refused.json()["field"] == "network.allow", wrong
    plain = create(server)
    assert server.http.put(f"/v1/sessions/{plain}/network", json={"allow": []}).status_code == 409


def test_a_brokered_secret_is_a_placeholder_inside_whose_programs_trust_their_gateway(server: Server) -> None:
    value = "value-" + "9d1e7c44"
    made = server.http.post("/api/secrets", json={"name": "BROKERED", "value": value, "hosts": ["api.example.org"]})
    assert made.status_code in (200, 201), made.text
    use = [{"name": "BROKERED", "as": "broker"}]
    try:
        refused = server.http.post("/v1/sessions", json={"image": "host", "network": "outgoing", "secrets": use})
        assert refused.status_code == 400 and refused.json()["field"] == "secrets"
        session = create(server, network={"allow": ["api.example.org"]}, secrets=use)
        environment = server.sh(session, "env")
        assert "BROKERED=atoll-secret-" in environment and value not in environment
        assert server.sh(session, 'grep -c BEGIN "$SSL_CERT_FILE"').strip() >= "1"
        assert "PRIVATE" not in server.sh(session, 'cat "$NODE_EXTRA_CA_CERTS"')
        assert value not in server.log()
    finally:
        server.http.delete("/api/secrets/BROKERED")
