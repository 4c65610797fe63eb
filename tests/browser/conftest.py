"""Fixtures: one Chromium and one service per test process, a page of its own for each test."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browser import chromium
from tests.browser.gate import Gate
from tests.browser.surface import PATIENCE, Surface

expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Skips where there is no Chromium; fails where `CI` is set."""
    executable = chromium.find()
    if executable is None:
        reason = "no Chromium on PATH (`make test-browser` installs one; $GBE_CHROMIUM names another)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=chromium.ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gate(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """A service that the tests share; each leaves it idle."""
    gate = Gate(tmp_path_factory.mktemp("gate"))
    await gate.start()
    try:
        yield gate
    finally:
        await gate.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def surface(browser: Browser, gate: Gate) -> AsyncIterator[Surface]:
    """A page on the shared service, not opened yet, with no run under way. Checked at the end."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    surface = Surface(context, await context.new_page(), gate.url)
    await settle(surface)
    yield surface
    await surface.expect_clean()
    await settle(surface)
    await context.close()


async def settle(surface: Surface) -> None:
    """End whatever is under way, and dismiss it."""
    run = (await surface.api("GET", "/state"))["run"]
    if run is not None and run["state"] == "running":
        await surface.context.request.post(f"{surface.url}/runs/{run['run_id']}/stop")
        while (run := await surface.api("GET", f"/runs/{run['run_id']}"))["phase"] != "ended":
            await surface.page.wait_for_timeout(20)
    if run is not None:
        await surface.api("POST", "/state/reset")
