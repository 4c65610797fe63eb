"""`HttpOperative`: one request per attempt. What its params mean: `gbe_operative_http.core.request`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gbe_jobs_domain.edges import Ref
from gbe_jobs_domain.outcomes import FailureKind, TaskOutcome
from gbe_jobs_domain.payloads import SecretRef
from gbe_nexus import IntegrityError, NexusError, NotFound
from gbe_operative.contract import Execution, Operative, OperativeContext, OperativeError
from gbe_operative.plugin_settings import ConfigurationError, from_environment
from gbe_operative.secrets import InsecureSecrets, check_private
from gbe_operative_http.core.addresses import AddressPolicy
from gbe_operative_http.core.redirects import HARMLESS
from gbe_operative_http.settings import HttpSettings

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from gbe_operative_http.client import Client
    from gbe_operative_http.core.request import Request


log = logging.getLogger(__name__)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
"""Seconds until a body is fetched again that could not be stored."""


class HttpOperative(Operative):
    """Serves any task types with HTTP requests. Raises `ConfigurationError` for settings that make no sense."""

    def __init__(
        self,
        task_types: Sequence[str] = ("http",),
        *,
        settings: HttpSettings | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._types = tuple(task_types)
        self._settings = from_environment(HttpSettings, environment) if settings is None else settings
        try:
            self._policy = AddressPolicy(self._settings.allow, self._settings.deny)
        except ValueError as error:
            raise ConfigurationError(f"GBE_HTTP_ALLOW, GBE_HTTP_DENY: {error}") from error
        self._client: Client | None = None

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    async def start(self, context: OperativeContext) -> None:
        """Make the pool of connections. Here httpx is imported, and not before."""
        from gbe_operative_http.client import Client

        # It tells of what came back, cookies and all, to whoever looks for a fault.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        proxy = self._settings.proxy
        try:
            self._client = Client(
                self._policy, _tls(self._settings), None if proxy is None else proxy.get_secret_value()
            )
        except ValueError as error:
            raise ConfigurationError(f"GBE_HTTP_PROXY: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Send the request and read the answer."""
        from gbe_operative_http.core.request import WITHOUT_EFFECT, Limits, ParamError, request_of
        from gbe_operative_http.outcome import outcome_of

        client, settings = self._client, self._settings
        if client is None:
            raise RuntimeError("the HttpOperative was not started")
        limits = Limits(settings.connect_timeout, settings.read_timeout, settings.max_body)
        try:
            request = request_of(execution.params, execution.refs, execution.task.task_id, limits)
        except ParamError as error:
            raise OperativeError(str(error), kind=FailureKind.REJECTED) from error
        if concealed := (*request.conceal, *_made_of_secrets(execution, request)):
            execution.conceal(*concealed)
        content = request.content

        def upload() -> AsyncIterator[bytes]:
            assert isinstance(content, Ref)
            return execution.artifacts.get(content.key)

        pause = FIRST_PAUSE
        while True:
            try:
                async with client.answer(request, upload) as answer:
                    return await outcome_of(execution, request, answer)
            except (NotFound, IntegrityError) as error:
                raise OperativeError(f"body_ref: {error}", retryable=False) from error
            except NexusError as error:
                # Our own store was away while a body was on its way there, which is no fault of the task.
                if not error.retryable or request.method not in WITHOUT_EFFECT:
                    raise
                log.warning("task %s: a body could not be stored, asking again: %s", execution.task.task_id, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)


def _made_of_secrets(execution: Execution, request: Request) -> Iterator[str]:
    """What a service may repeat of params that are secrets as a whole, in other words than theirs."""
    secret = {name for name, value in execution.task.params.items() if isinstance(value, SecretRef)}
    if secret & {"url", "query"}:
        yield str(request.url)
        if len(target := request.url.raw_path.decode("ascii", "replace")) > 1:
            yield target
        yield from request.url.params.values()
    if "headers" in secret:
        yield from (value for name, value in request.headers if name.lower() not in HARMLESS)


def _tls(settings: HttpSettings) -> ssl.SSLContext:
    import ssl

    import httpx

    try:
        context = httpx.create_ssl_context(verify=settings.tls_verify, trust_env=False)
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"GBE_HTTP_TLS_CA: {settings.tls_ca}: {error}") from error
    if settings.tls_cert is not None:
        _load_own_certificate(context, settings.tls_cert, settings.tls_key)
    elif settings.tls_key is not None:
        raise ConfigurationError("GBE_HTTP_TLS_KEY: a key without GBE_HTTP_TLS_CERT")
    return context


def _load_own_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    import ssl

    try:
        check_private(certificate if key is None else key)
        context.load_cert_chain(certificate, key, password="")  # never asks the terminal for one
    except (InsecureSecrets, OSError, ssl.SSLError) as error:
        files = f"{certificate}" if key is None else f"{certificate}, {key}"
        raise ConfigurationError(f"GBE_HTTP_TLS_CERT: {files}: {error}") from error
