"""TLS, proxies, and what is never told: credentials."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gbe_jobs_domain.outcomes import Completed
from gbe_jobs_domain.payloads import SecretRef
from gbe_nexus import Transport
from gbe_operative.contract import OperativeContext, OperativeError
from gbe_operative.plugin_settings import ConfigurationError, SecretStr
from gbe_operative.secrets import Secrets
from gbe_operative.testing import Hall
from gbe_operative_http import HttpOperative
from gbe_operative_http.settings import HttpSettings
from gbe_operative_http.testing import Received, Reply, Web, json_reply

Start = Any  # of conftest.py, which can't be imported

SETTINGS = HttpSettings(allow=("loopback",))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signed itself, and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate")
    file = tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", file, "-out", tmp_path / "cert"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_bytes(file.read_bytes() + (tmp_path / "cert").read_bytes())
    return file


async def test_certificates_are_checked(start: Start, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with Web({"/": Reply(body=b"hi")}, tls=context) as web:
        http = await start()
        with pytest.raises(OperativeError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await http.get(web.url)
        assert not caught.value.retryable
        assert not web.received
        assert isinstance(await (await start(tls_ca=certificate)).get(web.url), Completed)
        named = f"https://localhost:{web.port}/"
        with pytest.raises(OperativeError, match=r"mismatch|doesn't match"):
            await (await start(tls_ca=certificate)).get(named)
        assert isinstance(await (await start(tls_verify=False)).get(named), Completed)


async def test_a_certificate_of_our_own(start: Start, certificate: Path, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    certificate.chmod(0o600)
    async with Web({"/": Reply(body=b"hi")}, tls=context) as web:
        with pytest.raises(OperativeError):
            await (await start(tls_ca=certificate)).get(web.url)
        for key in (None, certificate):
            http = await start(tls_ca=certificate, tls_cert=certificate, tls_key=key)
            assert isinstance(await http.get(web.url), Completed)
    with pytest.raises(ConfigurationError, match="GBE_HTTP_TLS_KEY: a key without"):
        await start(tls_key=certificate)
    with pytest.raises(ConfigurationError, match=r"GBE_HTTP_TLS_CERT: .*missing"):
        await start(tls_cert=tmp_path / "missing")
    certificate.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"GBE_HTTP_TLS_CERT: .*others may use it"):
        await start(tls_cert=certificate)


async def test_settings_that_make_no_sense(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"GBE_HTTP_TLS_CA: .*missing"):
        await start(tls_ca=tmp_path / "missing")
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match="GBE_HTTP_TLS_CA"):
        await start(tls_ca=tmp_path / "no.pem")
    for proxy in ("localhost:3128", "socks5://x", "http://"):
        with pytest.raises(ConfigurationError, match="GBE_HTTP_PROXY"):
            await start(proxy=SecretStr(proxy))
    with pytest.raises(ConfigurationError, match="GBE_HTTP_MAX_BODY: '5'"):
        HttpOperative(environment={"GBE_HTTP_MAX_BODY": "5"})


async def test_by_the_proxy_of_the_host(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(received: Received) -> Reply:
        return json_reply({"asked": received.target, "as": received.headers["proxy-authorization"]})

    async with Web() as proxy:
        # A proxy is asked for whole URLs; their paths are what `Web` looks up.
        proxy.routes["/x"] = forward
        http = await start(proxy=SecretStr(f"http://me:pa%21@127.0.0.1:{proxy.port}"), allow=())
        outcome = await http.get("http://nowhere.invalid/x")
        assert outcome.data.decoded()["body"] == {"asked": "http://nowhere.invalid/x", "as": "Basic bWU6cGEh"}
        with pytest.raises(OperativeError, match="may not be reached"):
            await http.get("http://169.254.169.254/x")
        with pytest.raises(OperativeError, match="may not be reached"):
            await http.get("http://localhost/x")
        assert len(proxy.received) == 1
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("all_proxy", proxy.url)
        async with Web({"/": Reply()}) as web:
            assert isinstance(await (await start()).get(web.url), Completed)
        assert len(proxy.received) == 1, "the environment's proxy is no word of the owner to us"


async def test_through_a_tunnel(start: Start, certificate: Path) -> None:
    """By a proxy too, the certificate is the service's."""
    asked: list[str] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.split()[1])
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(asked[-1].rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while part := await source.read(65536):
                    target.write(part)
                    await target.drain()
            target.close()

        await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    async with server, Web({"/": Reply(body=b"hi")}, tls=context) as web:
        proxy = SecretStr(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        http = await start(proxy=proxy, tls_ca=certificate)
        assert (await http.get(web.url)).output == ["hi"]
        assert asked == [f"127.0.0.1:{web.port}"]
        with pytest.raises(OperativeError, match="CERTIFICATE_VERIFY_FAILED"):
            await (await start(proxy=proxy)).get(web.url)
        with pytest.raises(OperativeError, match="may not be reached"):
            await (await start(proxy=proxy, allow=())).get(web.url)
        assert len(asked) == 2


async def test_secrets_stay_secret(transport: Transport) -> None:
    """P18: not on the bus, not in output, not in an error; not even what is made of them."""

    def echo(received: Received) -> Reply:
        return json_reply({"headers": received.headers}, 200 if received.path == "/echo" else 500)

    secrets = Secrets({"GBE_SECRET_TOKEN": "tr0ub4dor", "GBE_SECRET_PAIR": "me:hunter2-x", "GBE_SECRET_KEY": "k3y-k3y"})
    spy: list[bytes] = []
    async with Web() as web, Hall.on(transport) as hall:
        web.routes |= {"/echo": echo, "/broken": echo}
        await transport.listen(["gbe.>"], lambda subject, body: spy.append(body))
        await hall.worker(HttpOperative(settings=SETTINGS), secrets=secrets).start()
        for path in ("/echo", "/broken"):
            url = web.url + path
            await hall.queue(
                hall.task("a", "http", params={"url": url, "bearer_token": SecretRef("token")}, max_retries=0),
                hall.task("b", "http", params={"url": url, "basic_auth": SecretRef("pair")}),
                hall.task("c", "http", params={"url": url, "header_X-Key": SecretRef("key")}),
            )
        ended = await hall.ends(6)
        said = [received.headers for received in web.received]
        assert {headers.get("authorization") for headers in said} == {
            "Bearer tr0ub4dor",
            "Basic bWU6aHVudGVyMi14",
            None,
        }
        assert {headers.get("x-key") for headers in said} == {"k3y-k3y", None}
        assert all("***" in str(end.outcome) for end in ended)
        for secret in (b"tr0ub4dor", b"hunter2-x", b"k3y-k3y", b"bWU6aHVudGVyMi14"):
            assert not [body for body in spy if secret in body], secret


async def test_whole_params_that_are_secret(transport: Transport) -> None:
    """A URL, headers or a query that are secrets: their parts are, too."""

    def echo(received: Received) -> Reply:
        return json_reply({"target": received.target, "headers": received.headers, "query": received.query}, 400)

    async with Web() as web, Hall.on(transport) as hall:
        web.routes |= {"/hook/t0k3n": echo, "/": echo}
        hook = web.url.replace("http:", "HTTP:") + "/hook/t0k3n"
        secrets = {"hook": hook, "headers": '{"X-A": "v4lu3"}', "query": '{"key": "qu3ry"}'}
        held = Secrets({f"GBE_SECRET_{name.upper()}": value for name, value in secrets.items()})
        await hall.worker(HttpOperative(settings=SETTINGS), secrets=held).start()
        await hall.queue(
            hall.task("a", "http", params={"url": SecretRef("hook")}),
            hall.task("b", "http", params={"url": web.url, "headers": SecretRef("headers")}),
            hall.task("c", "http", params={"url": web.url, "query": SecretRef("query")}),
        )
        told = str(await hall.ends(3))
        assert len(web.received) == 3
        assert not [word for word in ("t0k3n", "v4lu3", "qu3ry") if word in told], told


async def test_a_password_in_a_url_is_told_nowhere_else(transport: Transport) -> None:
    async with Web({"/": lambda received: json_reply(received.headers, 400)}) as web, Hall.on(transport) as hall:
        await hall.worker(HttpOperative(settings=SETTINGS)).start()
        url = web.url.replace("://", "://me:hunter2@")
        await hall.queue(hall.task("a", "http", params={"url": url}))
        (ended,) = await hall.ends()
        assert web.received[0].headers["authorization"] == "Basic bWU6aHVudGVyMg=="
        told = str(ended.outcome)
        assert "hunter2" not in told
        assert "bWU6aHVudGVyMg" not in told


def test_nothing_is_imported_until_it_starts() -> None:
    code = "import sys; import gbe_operative_http as m; m.HttpOperative(environment={}); print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


async def test_used_before_its_start(transport: Transport, tmp_path: Path) -> None:
    operative = HttpOperative(environment={})
    assert operative.handles == ("http",)
    await operative.close()
    artifacts = await transport.artifact_store("gbe-artifacts")
    await operative.start(OperativeContext("w", transport, artifacts, tmp_path))
    await operative.close()
    await operative.close()
