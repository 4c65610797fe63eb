"""The service goes away and comes back: the page says so and goes on by itself."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.gate import Gate
from tests.browser.surface import Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]


async def test_killed_and_restarted_the_page_is_live_again_without_a_reload(browser: Browser, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    await gate.start()
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    page = await context.new_page()
    surface = Surface(context, page, gate.url)
    # The browser itself complains about what does not answer.
    surface.tolerated += ["ERR_CONNECTION", "WebSocket connection to"]
    try:
        await surface.open("#/logs")
        await surface.api("POST", "/scenarios/gf01/activate")
        await surface.start("pulse-100", 5_000_000, paused=True)
        await surface.expect_controls(resume=True, step=True, stop=True)

        await gate.kill()
        connection = page.locator(".connection")
        await expect(connection).to_have_text("Reconnecting…")
        await surface.expect_controls(resume=False, step=False, stop=False)
        await page.keyboard.press("p")
        assert [each for each in surface.writes() if "resume" in each] == []
        await surface.picture("reconnecting")

        await gate.start()
        await expect(connection).to_have_text("Live")
        # What the page shows is what the service knows now, whatever became of the run.
        run = (await surface.api("GET", "/state"))["run"]
        assert run is not None
        await page.wait_for_function(
            "([text]) => document.querySelector('.course-text').textContent.includes(text)", arg=["pulse-100"]
        )
        await expect(page.locator(".scenario-chip strong")).to_have_text("gf01")
        assert len([each for each in surface.requests if each.is_navigation_request()]) == 1
        await page.get_by_label("Current run only").uncheck()
        await page.get_by_label("Search in the entries").fill("reconnecting")
        await expect(surface.panel("logs").locator(".log-line:visible").first).to_be_visible()
        await surface.expect_clean()
    finally:
        await context.close()
        gate.end()
