"""Who may reach the service, and what a hostile request can do. The real service, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from gbe_runtime.errors import ConfigurationError
from tests.integration.gate_process import GateProcess, running
from trinity_gate.command import run
from trinity_gate.security import allowed_hosts
from trinity_gate.tokens import Tokens

pytestmark = pytest.mark.server

TOKENS = {role: f"{role}-0123456789abcdef" for role in ("observer", "operator", "overseer")}


def token_file(folder: Path, mode: int = 0o600) -> Path:
    path = folder / "tokens.toml"
    path.write_text("".join(f'[the-{role}]\nrole = "{role}"\ntoken = "{token}"\n' for role, token in TOKENS.items()))
    path.chmod(mode)
    return path


def error_of(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "field"}
    return response.status_code, body["error"]["code"]


class TestHostAndOrigin:
    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8400", "127.0.0.1.evil.example", "localhost@evil.example", "", "[::2]"]
    )
    async def test_a_foreign_host_reads_nothing(self, gate: GateProcess, host: str) -> None:
        for path in ("/state", "/", "/health", "/openapi.json", "/history"):
            assert error_of(await gate.client.get(path, headers={"Host": host})) == (403, "bad_host")

    @pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8400", "[::1]:8400", "LOCALHOST"])
    async def test_loopback_names_are_ours_whatever_the_port(self, gate: GateProcess, host: str) -> None:
        assert (await gate.client.get("/state", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize(
        "origin",
        ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "http://[bad", "http://[::g]"],
    )
    async def test_another_origin_writes_nothing(self, gate: GateProcess, origin: str) -> None:
        before = await gate.get("/history")
        response = await gate.client.post("/runs", json={"scenario_id": "gf01"}, headers={"Origin": origin})
        assert error_of(response) == (403, "bad_origin")
        assert await gate.get("/history") == before

    @pytest.mark.parametrize(
        "head",
        [b"GET /state HTTP/1.1\r\nHost:\xff\r\n\r\n", b"GET /state HTTP/1.1\r\n\r\n", b"\x16\x03\x01 TLS\r\n\r\n"],
        ids=["host", "no host", "TLS"],
    )
    async def test_what_is_no_http_is_answered_in_the_same_shape(self, gate: GateProcess, head: bytes) -> None:
        url = httpx.URL(gate.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head)
        answer, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))
        assert set(json.loads(body)["error"]) == {"code", "message", "field"}
        assert b"\r\ncontent-security-policy: " in answer.lower()

    async def test_its_own_page_writes(self, gate: GateProcess) -> None:
        headers = {"Origin": gate.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert (await gate.client.post("/scenarios/gf01/activate", headers=headers)).status_code == 200
        headers["Sec-Fetch-Site"] = "cross-site"
        assert error_of(await gate.client.post("/scenarios/gf01/activate", headers=headers)) == (403, "bad_origin")

    async def test_another_site_opens_no_websocket(self, gate: GateProcess) -> None:
        run_id = (await gate.run("gf01"))["run_id"]
        port = httpx.URL(gate.url).port
        for path in ("stream", f"runs/{run_id}/logs/stream"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/{path}", origin=Origin("http://evil.example"))
            assert refused.value.response.status_code == 403
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://evil.example:{port}/{path}", host="127.0.0.1", port=port)
            assert refused.value.response.status_code == 403

    async def test_a_websocket_that_is_refused_hears_why(self, gate: GateProcess) -> None:
        port = httpx.URL(gate.url).port
        for path, status, code in (
            ("nowhere", 404, "not_found"),
            ("state", 404, "not_found"),
            ("stream?token=secret-that-somebody-typed", 400, "token_in_url"),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/{path}")
            response = refused.value.response
            assert (response.status_code, json.loads(response.body)["error"]["code"]) == (status, code)
            assert response.headers["content-security-policy"].startswith("default-src 'self'")
        log = gate.process.log.read_text()
        assert "secret-that-somebody-typed" not in log
        assert "handshake" not in log

    async def test_every_answer_has_the_security_headers(self, gate: GateProcess) -> None:
        for path in ("/state", "/nothing", "/health"):
            headers = (await gate.client.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in headers


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (b"{", 400, "bad_json"),
            (b"", 422, "invalid"),
            (b"[]", 422, "invalid"),
            (b"null", 422, "invalid"),
            (b'{"scenario_id": "\\ud800"}', 422, "invalid"),
            (b'{"scenario_id": "\x00"}', 400, "bad_json"),
            (b'{"scenario_id": "gf01", "overrides": {"ticks_total": ' + b"9" * 5000 + b"}}", 400, "bad_json"),
            (b'{"scenario_id": "gf01", "overrides": {"ticks_total": 1e3}}', 422, "invalid"),
            (b'{"scenario_id": "gf01", "overrides": {"ticks_total": NaN}}', 422, "invalid"),
            (b"[" * 100_000, 400, "bad_json"),
            (b'{"scenario_id": "nowhere", "scenario_id": "gf01"}', 400, "bad_json"),
            (b'{"scenario_id": "gf01", "overrides": {"ticks_total": 1, "ticks_total": 2}}', 400, "bad_json"),
            ('{"scenario_id": "gf01"}'.encode("utf-16"), 400, "bad_json"),
            (b'{"scenario_id": "\xe9"}', 400, "bad_json"),
            (b'"' + b"x" * 300_000 + b'"', 413, "too_large"),
        ],
    )
    async def test_a_hostile_body_is_refused(self, gate: GateProcess, body: bytes, status: int, code: str) -> None:
        headers = {"Content-Type": "application/json"}
        assert error_of(await gate.client.post("/runs", content=body, headers=headers)) == (status, code)

    async def test_what_a_route_does_not_know_is_refused(self, gate: GateProcess) -> None:
        run_id = (await gate.run("gf01"))["run_id"]
        before = await gate.get("/state")
        for path, query, field in (
            ("/state", "x=1", "x"),
            ("/health", "verbose", "verbose"),
            ("/metrics", "x=1", "x"),
            ("/history", "limit=1&offset=3", "offset"),
            ("/history", "limit=1&limit=2", "limit"),
            ("/history", "limit=1_0", "limit"),
            ("/history", "limit=%2B1", "limit"),
            (f"/runs/{run_id}/logs", "event=tick_complete", "event"),
            (f"/history/{run_id}/export", "format=tar", "format"),
        ):
            response = await gate.client.get(f"{path}?{query}")
            assert error_of(response) == (422, "invalid"), path
            assert response.json()["error"]["field"] == field
        for path in ("/scenarios/line-4/activate", f"/runs/{run_id}/stop", "/state/reset"):
            assert error_of(await gate.client.post(f"{path}?force=1")) == (422, "invalid")
            for body, named in (({"force": True}, "force"), ([1], None), (0, None)):
                response = await gate.client.post(path, json=body)
                assert error_of(response) == (422, "invalid")
                assert response.json()["error"]["field"] == named
        assert await gate.get("/state") == before
        assert (await gate.client.post("/state/reset", json={})).status_code == 200

    async def test_a_head_is_answered_as_its_get_without_the_body(self, gate: GateProcess) -> None:
        run_id = (await gate.run("gf01"))["run_id"]
        await gate.collected(run_id)
        paths = ["/", "/app/main.js", "/state", "/health", "/openapi.json", "/scenarios", "/scenarios/gf01", "/history"]
        paths += ["/metrics", f"/runs/{run_id}/logs", f"/history/{run_id}/export", f"/history/{run_id}", "/audit"]
        for path in paths:
            head, get = await gate.client.head(path), await gate.client.get(path)
            assert (head.status_code, head.content) == (200, b""), path
            assert head.headers["content-type"] == get.headers["content-type"]
            if path != "/metrics":  # counts the answers
                assert head.headers["content-length"] == get.headers["content-length"], path
        assert (await gate.client.head("/runs/nowhere")).status_code == 404
        refused = await gate.client.head(f"/runs/{run_id}/stop")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
        assert (await gate.client.delete("/state")).headers["allow"] == "GET, HEAD"

    async def test_files_of_the_page_are_sent_once_as_long_as_they_are_the_same(self, gate: GateProcess) -> None:
        for path in ("/", "/app/main.js"):
            whole = await gate.client.get(path)
            tag = whole.headers["etag"]
            for known in (tag, f'"other", {tag}'):
                again = await gate.client.get(path, headers={"If-None-Match": known})
                assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            changed = await gate.client.get(path, headers={"If-None-Match": '"other"'})
            assert (changed.status_code, changed.content) == (200, whole.content)

    async def test_a_body_that_is_not_json_is_refused(self, gate: GateProcess) -> None:
        # What a form of another site could send without asking first.
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            response = await gate.client.post(
                "/runs", content=b'{"scenario_id": "gf01"}', headers={"Content-Type": kind}
            )
            assert error_of(response) == (415, "not_json")

    async def test_a_body_without_length_is_limited_too(self, gate: GateProcess) -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 8192

        response = await gate.client.post("/runs", content=endless(), headers={"Content-Type": "application/json"})
        assert error_of(response) == (413, "too_large")

    async def test_a_head_without_end_is_cut_off(self, gate: GateProcess) -> None:
        url = httpx.URL(gate.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(b"GET /state HTTP/1.1\r\nHost: localhost\r\nX: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20 and not reader.at_eof():
                writer.write(b"a" * 65_536)
                await writer.drain()
                sent += 65_536
        writer.close()
        assert sent < 64 << 20
        assert (await gate.get("/health"))["status"] == "ok"

    async def test_unknown_paths_and_methods_have_the_same_shape(self, gate: GateProcess) -> None:
        assert error_of(await gate.client.get("/nothing")) == (404, "not_found")
        assert error_of(await gate.client.post("/nothing")) == (404, "not_found")
        assert error_of(await gate.client.delete("/state")) == (405, "method_not_allowed")
        assert error_of(await gate.client.get("/docs")) == (404, "not_found")

    @pytest.mark.parametrize(
        "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc"]
    )
    async def test_no_path_leads_out_of_the_page(self, gate: GateProcess, path: str) -> None:
        url = httpx.URL(gate.url).copy_with(raw_path=path.encode())
        assert error_of(await gate.client.get(url))[0] == 404

    async def test_ids_are_never_paths(self, gate: GateProcess) -> None:
        for run_id in (".%2e", ".", "%2e%2e", "a%00b", "x" * 500, "run-%F0%9F%98%80"):
            for path in (f"/runs/{run_id}", f"/history/{run_id}/export", f"/runs/{run_id}/logs"):
                url = httpx.URL(gate.url).copy_with(raw_path=path.encode())
                assert (await gate.client.get(url)).status_code in (404, 405)

    async def test_no_answer_names_a_place_on_the_host(self, gate: GateProcess) -> None:
        status = await gate.run("gf01")
        run_id = status["run_id"]
        answers = [
            (await gate.client.get(path)).text
            for path in (
                "/state",
                "/scenarios",
                "/scenarios/gf01",
                f"/history/{run_id}",
                f"/runs/{run_id}/logs",
                "/audit",
                "/health",
                "/metrics",
                "/openapi.json",
                "/history/nowhere/export",
            )
        ]
        assert not [answer for answer in answers if str(gate.folder) in answer or "/work" in answer]


class TestTokens:
    @pytest_asyncio.fixture
    async def guarded(self, tmp_path: Path) -> AsyncIterator[GateProcess]:
        async with running(tmp_path, arguments=("--tokens", str(token_file(tmp_path)))) as found:
            yield found

    async def test_each_role_may_do_what_it_says(self, guarded: GateProcess) -> None:
        async def call(method: str, path: str, role: str | None, body: Any = None) -> int:
            headers = {} if role is None else {"Authorization": f"Bearer {TOKENS.get(role, role)}"}
            return (await guarded.client.request(method, path, json=body, headers=headers)).status_code

        assert await call("GET", "/health", None) == 200
        for path in ("/state", "/history", "/scenarios", "/governance", "/metrics", "/whoami"):
            assert await call("GET", path, None) == 401
            assert await call("GET", path, "a-token-that-nobody-has") == 401
            assert await call("GET", path, "observer") == 200
        assert await call("POST", "/scenarios/gf01/activate", "observer") == 403
        assert await call("POST", "/scenarios/gf01/activate", "operator") == 200
        assert await call("POST", "/governance", "operator", {"mode": "OFF"}) == 403
        assert await call("POST", "/governance", "overseer", {"mode": "OFF"}) == 200
        assert await call("GET", "/audit", "operator") == 403

        # In the audit is who did it; what was refused for its role was never begun.
        headers = {"Authorization": f"Bearer {TOKENS['overseer']}"}
        audit = (await guarded.client.get("/audit", headers=headers)).json()
        assert [(entry["actor"], entry["action"], entry["result"]) for entry in audit] == [
            ("the-overseer", "governance.update", "ok"),
            ("the-operator", "scenario.activate", "ok"),
        ]
        assert audit[0]["detail"] == {"mode": "OFF"}

        # A token in a URL ends up in logs and histories.
        assert await call("GET", f"/state?token={TOKENS['overseer']}", None) == 400

        # WebSockets: by header, or by the subprotocol that a browser can offer.
        url = guarded.url.replace("http", "ws") + "stream"
        async with connect(url, additional_headers={"Authorization": f"Bearer {TOKENS['observer']}"}) as socket:
            assert json.loads(await socket.recv())["type"] == "state"
        async with connect(url, subprotocols=["trinity-gate", f"bearer.{TOKENS['observer']}"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "trinity-gate"
            assert json.loads(await socket.recv())["type"] == "state"
        encoded = base64.urlsafe_b64encode(TOKENS["observer"].encode()).decode().rstrip("=")
        async with connect(url, subprotocols=["trinity-gate", f"bearer64.{encoded}"]) as socket:  # type: ignore[list-item]
            assert json.loads(await socket.recv())["type"] == "state"
        for wrong in ("", "%%%", "_w", encoded[:-2]):
            async with connect(url, subprotocols=["trinity-gate", f"bearer64.{wrong}"]) as socket:  # type: ignore[list-item]
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 4401
        async with connect(url) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
        assert not [token for token in TOKENS.values() if token in guarded.process.log.read_text()]


class TestStarting:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "has no tokens"),
            ('[a]\nrole = "king"\ntoken = "0123456789012345678901"', "role is 'king'"),
            ('[a]\nrole = "observer"\ntoken = "short"', "at least 20"),
            ('[a]\nrole = "observer"', "at least 20"),
            ("a = 1", "is not a table"),
            ("[a", "is not TOML"),
            ('[a]\nrole = "observer"\ntoken = "0123456789012345678901"\nx = 1', "unknown keys: x"),
        ],
    )
    def test_a_bad_token_file_says_what_is_wrong(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "tokens.toml"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match=said):
            Tokens.read(path)

    def test_a_token_file_that_others_may_read_is_not_trusted(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="open to others"):
            Tokens.read(token_file(tmp_path, 0o644))
        with pytest.raises(ConfigurationError, match="can't read"):
            Tokens.read(tmp_path / "nowhere")

    def test_nobody_listens_to_the_world_without_tokens(
        self, capfd: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        assert run(["--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path)]) == 2
        assert "--tokens" in capfd.readouterr().err

    @pytest.mark.parametrize("name", ["gate.sqlite", "logs", "tmp"])
    def test_what_can_not_be_used_in_the_data_directory_is_named(
        self, capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str
    ) -> None:
        obstacle = tmp_path / name
        if name == "gate.sqlite":
            obstacle.mkdir()
        else:
            obstacle.write_text("in the way")
        assert run(["--port", "0", "--data", str(tmp_path)]) == 2
        said = capfd.readouterr().err
        assert f"{obstacle} can't be used: " in said
        assert "Traceback" not in said

    async def test_a_port_or_a_directory_that_is_taken_is_said(self, gate: GateProcess, tmp_path: Path) -> None:
        async def said(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                *gate.process.argv[:3], *arguments, stderr=asyncio.subprocess.PIPE
            )
            _, text = await process.communicate()
            assert process.returncode == 2
            return text.decode()

        port = str(httpx.URL(gate.url).port)
        assert "choose another --port" in await said("--port", port, "--data", str(tmp_path))
        assert "another trinity-gate uses" in await said("--port", "0", "--data", str(gate.data))

    def test_names_by_which_it_may_be_called(self) -> None:
        assert allowed_hosts("0.0.0.0", ["Gate.example"]) >= {"gate.example", "localhost"}
        assert "0.0.0.0" not in allowed_hosts("0.0.0.0", [])
        assert "192.0.2.1" in allowed_hosts("192.0.2.1", [])
