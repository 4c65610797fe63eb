"""The service goes away and comes back: the page says so and goes on by itself."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

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


async def test_what_can_not_be_read_at_first_is_read_again(surface: Surface) -> None:
    """Without it the page would say Live, and no control would work."""
    await surface.refuse("**/whoami", 503, "index_unavailable", times=1)
    await surface.open()
    await expect(surface.toast("The state could not be read")).to_contain_text("index_unavailable · 503")
    await surface.expect_controls(start=True)
    await expect(surface.page.locator(".who")).to_have_text("overseer")


async def test_a_state_that_was_read_is_not_shown_over_a_newer_one(surface: Surface) -> None:
    """A slow answer says running; meanwhile the stream said that it is over, and says nothing more."""
    page = surface.page
    await surface.open()
    await surface.start("pulse-100", 5_000_000)
    await surface.expect_controls(pause=True, step=False, stop=True)
    held, over = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        answer = await route.fetch()
        held.set()
        await over.wait()
        await route.fulfill(response=answer)

    await page.route("**/state", late)
    await surface.refuse("**/pause", 409, "run_paused")
    await surface.control("pause").click()  # refused, so everything is read again
    await held.wait()
    run = (await surface.api("GET", "/state"))["run"]
    await surface.api("POST", f"/runs/{run['run_id']}/stop")
    await expect(surface.pill).to_have_text("Idle")
    over.set()
    await surface.expect_controls(start=True)
    await surface.quiet()
    await expect(surface.pill).to_have_text("Idle")


async def test_two_pages_show_the_same(surface: Surface) -> None:
    await surface.open()
    other = Surface(surface.context, await surface.context.new_page(), surface.url)
    await other.open()
    await surface.start("pulse-100", 5_000_000, paused=True)
    await other.expect_controls(resume=True, step=True, stop=True)
    await other.control("step").click()
    await surface.expect_ticks_beyond(0)
    # Both want to stop it; the second one's question is void when the run is over.
    await surface.control("stop").click()
    await other.stop()
    await surface.expect_controls(start=True)
    before = surface.writes()
    await surface.dialog.get_by_role("button", name="Stop the run").click()
    await expect(surface.dialog).to_have_count(0)
    assert surface.writes() == before
    await other.expect_clean()
    await other.page.close()
