"""`LlmOperative`: one chat completion per attempt. What its params mean: `gbe_operative_llm.core.request`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gbe_jobs_domain.outcomes import FailureKind, TaskOutcome
from gbe_operative.contract import Execution, Operative, OperativeContext, OperativeError
from gbe_operative.plugin_settings import ConfigurationError, from_environment
from gbe_operative.secrets import InsecureSecrets, check_private
from gbe_operative_llm.core.answer import error_of, outcome_of
from gbe_operative_llm.core.request import ParamError, request_of
from gbe_operative_llm.settings import LlmSettings

if TYPE_CHECKING:
    import ssl

    import httpx

MAX_ANSWER = 16 << 20
"""Bytes of an answer."""

NO_SERVICE = "this host has no language model: its owner has to set GBE_LLM_BASE_URL"


class LlmOperative(Operative):
    """Serves any task types with chat completions. Raises `ConfigurationError` for settings that make no sense."""

    def __init__(
        self,
        task_types: Sequence[str] = ("llm",),
        *,
        settings: LlmSettings | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._types = tuple(task_types)
        self._settings = from_environment(LlmSettings, environment) if settings is None else settings
        if self._settings.api_key is not None and self._settings.api_key_file is not None:
            raise ConfigurationError("both GBE_LLM_API_KEY and GBE_LLM_API_KEY_FILE are set")
        self._url: str | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def handles(self) -> tuple[str, ...]:
        """As given."""
        return self._types

    async def start(self, context: OperativeContext) -> None:
        """Make the client. Here httpx is imported, and not before.

        A host without a service starts all the same, and its tasks say what is missing: `gbe up` serves everything.
        """
        settings = self._settings
        self._key()
        if settings.base_url is None:
            return
        import httpx

        # They tell of each request, with the whole address, at the level of what an operator wants to read, and of
        # what came back, which may repeat the key, at the level of who looks for a fault.
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._url = _endpoint(settings.base_url)
        proxy = settings.proxy
        try:
            self._client = httpx.AsyncClient(
                verify=_tls(settings),
                proxy=None if proxy is None else proxy.get_secret_value(),
                trust_env=False,
                follow_redirects=False,  # the key is for this service and no other
                timeout=httpx.Timeout(settings.read_timeout, connect=settings.connect_timeout),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=5.0),
                headers={
                    "User-Agent": "gbe-operative-llm",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
            )
        except ValueError as error:
            raise ConfigurationError("GBE_LLM_PROXY: expected http://host:port") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def execute(self, execution: Execution) -> TaskOutcome:
        """Ask, and wait for the whole answer."""
        try:
            request = request_of(execution.params, self._settings.model)
        except ParamError as error:
            raise OperativeError(str(error), kind=FailureKind.REJECTED) from error
        if self._client is None or self._url is None:
            raise OperativeError(NO_SERVICE, retryable=False)
        headers = {
            "Content-Type": "application/json",
            # Another attempt wants another answer; another delivery of the same attempt does not.
            "Idempotency-Key": f"{execution.task.task_id}-{execution.attempt}",
        }
        try:
            key = self._key()
        except ConfigurationError as error:  # it was right at the start
            raise OperativeError(str(error)) from error
        if key is not None:
            execution.conceal(key)
            headers["Authorization"] = f"Bearer {key}"
        response, body = await self._ask(self._client, self._url, headers, request.body)
        if response.status_code != 200:
            raise error_of(response.status_code, response.reason_phrase, response.headers, body)
        return outcome_of(body, request.json)

    async def _ask(
        self, client: httpx.AsyncClient, url: str, headers: Mapping[str, str], content: bytes
    ) -> tuple[httpx.Response, bytes]:
        import httpx

        body = bytearray()
        try:
            async with client.stream("POST", url, headers=headers, content=content) as response:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > MAX_ANSWER:
                        raise OperativeError(f"the service's answer is larger than {MAX_ANSWER} bytes")
        except httpx.ConnectTimeout as error:
            raise OperativeError(
                f"no connection to the service within {self._settings.connect_timeout:g} s", kind=FailureKind.TIMEOUT
            ) from error
        except httpx.TimeoutException as error:
            raise OperativeError(
                f"nothing was heard of the service for {self._settings.read_timeout:g} s", kind=FailureKind.TIMEOUT
            ) from error
        except httpx.TransportError as error:
            raise OperativeError(f"the service can't be reached: {str(error) or type(error).__name__}") from error
        return response, bytes(body)

    def _key(self) -> str | None:
        """The key; of a file as it is now, for keys are replaced. Raises `ConfigurationError`."""
        file = self._settings.api_key_file
        if file is None:
            key = None if self._settings.api_key is None else self._settings.api_key.get_secret_value()
        else:
            try:
                check_private(file)
                key = file.read_text(encoding="utf-8").strip()
            except (InsecureSecrets, OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"GBE_LLM_API_KEY_FILE: {error}") from error
        if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
            name = "GBE_LLM_API_KEY" if file is None else "GBE_LLM_API_KEY_FILE"
            raise ConfigurationError(f"{name}: empty, or with characters that no key has")
        return key


def _endpoint(base: str) -> str:
    """Where requests go. Raises `ConfigurationError`."""
    import httpx

    try:
        url = httpx.URL(base)
        if url.scheme in ("http", "https") and url.host and not url.userinfo and not url.query and not url.fragment:
            return f"{str(url).rstrip('/')}/chat/completions"
    except httpx.InvalidURL:
        pass
    raise ConfigurationError("GBE_LLM_BASE_URL: expected http:// or https://, a host and a path, and no more")


def _tls(settings: LlmSettings) -> ssl.SSLContext:
    import ssl

    import httpx

    try:
        context = httpx.create_ssl_context(trust_env=False)
        if settings.tls_ca is not None:
            context.load_verify_locations(settings.tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"GBE_LLM_TLS_CA: {settings.tls_ca}: {error}") from error
    return context
