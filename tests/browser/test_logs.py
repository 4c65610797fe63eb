"""Logs & Console: following a run, filters, and 100,000 lines."""

import json
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.surface import Surface
from tests.browser.test_history import run

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]

LINES = 100_000

FEED = (Path(__file__).parent / "feed.js").read_text()


async def test_100_000_lines_do_not_freeze_the_page(surface: Surface) -> None:
    page = surface.page
    await surface.open("#/logs")
    figures = await page.evaluate(FEED, LINES)
    print("100,000 lines, milliseconds:", json.dumps({name: round(value) for name, value in figures.items()}))
    assert (await page.evaluate("window.__counts"))["total"] == LINES
    assert figures["elements"] < 500  # only what is in view exists

    lines = page.locator("#synthetic .log-line:visible")
    viewport = page.locator("#synthetic .log-viewport")
    await page.evaluate("window.__list.follow(true)")
    await expect(lines.filter(has_text=f"Tick {LINES - 1} complete")).to_be_visible()
    await viewport.evaluate("node => { node.scrollTop = 50_000 * 24; }")
    await expect(lines.filter(has_text="Tick 50000 complete")).to_be_visible()
    await page.evaluate("window.__list.filter({ text: 'tick 99' })")
    await expect(viewport).to_have_attribute("aria-rowcount", str(1 + 10 + 100 + 1000))
    await page.evaluate("window.__list.filter({ text: '', level: 'ERROR' })")
    await expect(viewport).to_have_attribute("aria-rowcount", str(LINES // 5))
    await viewport.focus()
    await page.keyboard.press("Home")
    await expect(lines.first).to_contain_text("Tick 4 complete")
    await expect(viewport).to_have_attribute("aria-activedescendant", await lines.first.get_attribute("id") or "?")
    await surface.picture("logs-100000")


async def test_entries_come_in_while_it_runs_and_are_complete_afterwards(surface: Surface) -> None:
    page = surface.page
    await surface.open("#/logs")
    panel = surface.panel("logs")
    await surface.start("pulse-100", 5_000_000)
    lines = panel.locator(".log-line:visible")
    await expect(lines.filter(has_text="tick_complete").first).to_be_visible()
    follow = panel.get_by_role("button", name="Follow")
    await expect(follow).to_have_attribute("aria-pressed", "true")
    viewport = panel.locator(".log-viewport")
    await viewport.hover()
    while await viewport.evaluate("node => node.scrollTop") == 0:  # a first report may not fill the view
        await page.evaluate("() => new Promise(requestAnimationFrame)")
    await page.mouse.wheel(0, -2000)
    await expect(follow).to_have_attribute("aria-pressed", "false")
    await follow.click()
    await expect(follow).to_have_attribute("aria-pressed", "true")
    await surface.stop()
    await expect(panel.locator(".log-counts")).to_contain_text("complete")
    await expect(lines.last).not_to_contain_text("tick_complete")

    # Everything this page has seen, its own messages too; then the run alone again.
    await panel.get_by_label("Current run only").uncheck()
    await panel.get_by_label("Search in the entries").fill("cancelled")
    await expect(lines.filter(has_text="state").first).to_be_visible()
    await panel.get_by_label("Current run only").check()
    await panel.get_by_label("Search in the entries").fill("")
    await panel.get_by_label("Level").select_option("ERROR")
    await expect(panel.locator('.log-line:visible:not([data-level="ERROR"])')).to_have_count(0)


async def test_another_run_has_another_log_and_an_empty_view_says_why(surface: Surface) -> None:
    first, second = await run(surface, "gf01", 8), await run(surface, "line-4", 6)
    quiet = await surface.api(
        "POST", "/runs", {"scenario_id": "gf01", "overrides": {"logging_enabled": False, "ticks_total": 8}}
    )
    await surface.open(f"#/logs/{first}")
    panel = surface.panel("logs")
    lines = panel.locator(".log-line:visible")
    choice = panel.get_by_label("Run", exact=True)
    nothing = panel.locator(".log-nothing")
    await expect(lines.first).to_contain_text("8 ticks, 2 windows")
    await choice.select_option(second)
    await expect(lines.first).to_contain_text("6 ticks, 1 window")
    await choice.select_option(first)  # both are known now
    await expect(lines.first).to_contain_text("8 ticks, 2 windows")
    await expect(nothing).to_be_hidden()
    await lines.first.click()
    await expect(panel.locator(".log-detail")).to_contain_text("8 ticks, 2 windows")
    await panel.get_by_role("button", name="Close").click()
    await expect(panel.locator(".log-detail")).to_be_hidden()
    await expect(panel.locator(".log-viewport")).to_be_focused()

    await panel.get_by_label("Search in the entries").fill("nowhere to be found")
    await expect(nothing).to_have_text("No entry matches.")
    await panel.get_by_label("Search in the entries").fill("")
    await expect(lines.first).to_be_visible()
    await surface.page.evaluate("run => { location.hash = `#/logs/${run}`; }", quiet["run_id"])
    await expect(nothing).to_contain_text("logging was switched off")
    await expect(lines).to_have_count(0)
