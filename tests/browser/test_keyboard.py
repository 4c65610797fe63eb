"""Everything without a pointer, and what an assistive technology is told."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.surface import TABS, Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]

NAMELESS = (Path(__file__).parent / "nameless.js").read_text()

FOCUSED = """() => {
  const node = document.activeElement;
  return node.id || node.dataset.control || node.getAttribute("aria-label") || node.textContent.trim() || node.tagName;
}"""


async def fill_in(surface: Surface) -> None:
    """Start a long run from the open dialog, by keyboard."""
    await surface.dialog.get_by_label("Scenario").focus()
    await surface.page.keyboard.type("pulse")
    await surface.dialog.get_by_label("Ticks").focus()
    await surface.page.keyboard.type("5000000")
    await surface.page.keyboard.press("Enter")


async def test_a_run_by_keyboard_alone(surface: Surface) -> None:
    page = surface.page
    press = page.keyboard.press
    await surface.open()

    # The tabs are one stop, arrows move within, Home and End jump.
    while await page.evaluate(FOCUSED) != "tab-dashboard":
        await press("Tab")
    for name in TABS[1:]:
        await press("ArrowDown")
        await expect(page.locator(f"#tab-{name}")).to_be_focused()
        await expect(surface.panel(name)).to_be_visible()
    await press("ArrowDown")
    await expect(page.locator("#tab-dashboard")).to_be_focused()
    await press("End")
    await expect(page.locator("#tab-logs")).to_have_attribute("aria-selected", "true")
    await press("Home")
    await press("5")
    await expect(surface.panel("history")).to_be_visible()
    await press("1")

    # Start with options: the dialog has the focus and keeps it.
    await press("o")
    await expect(surface.dialog.get_by_label("Ticks")).to_be_focused()
    for _ in range(16):
        await press("Tab")
        assert await page.evaluate("document.activeElement.closest('dialog') !== null")
    await press("Shift+Tab")
    assert await page.evaluate("document.activeElement.closest('dialog') !== null")
    await fill_in(surface)
    await surface.expect_controls(pause=True, step=False, stop=True)
    await press("p")
    await surface.expect_controls(resume=True, step=True, stop=True)
    held = await surface.ticks()
    await press(".")
    await surface.expect_ticks_beyond(held)
    # The tick may be seen before the answer to the step is, and until then nothing else is sent.
    await surface.expect_controls(resume=True, step=True, stop=True)
    await press("x")
    await expect(surface.dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await press("Tab")
    await press("Enter")
    await expect(surface.dialog).to_have_count(0)
    await surface.expect_controls(start=True)

    # The focus stays with the controls, whichever of them the state allows.
    await surface.control("options").focus()
    await press("Enter")
    await fill_in(surface)
    await surface.expect_controls(pause=True, step=False, stop=True)
    await surface.expect_ticks_beyond(0)  # a run that is still queued can't be paused
    for control, following in (("pause", "resume"), ("resume", "pause"), ("pause", "resume")):
        await expect(surface.control(control)).to_be_focused()
        await expect(surface.control(control)).to_be_enabled()
        await press("Enter")
        await expect(surface.control(following)).to_be_focused()
    await press("Tab")
    await press("Tab")
    await expect(surface.control("stop")).to_be_focused()
    await press("Enter")
    await press("Tab")
    await press("Enter")
    await expect(surface.control("start")).to_be_focused()

    # The help says all that; the single keys can be switched off, and that is remembered.
    await press("?")
    await expect(surface.dialog).to_contain_text("Stop (asks)")
    await surface.picture("keyboard")
    await surface.dialog.get_by_label("Single-key shortcuts").focus()
    await press("Space")
    await press("Escape")
    await press("6")
    await expect(surface.panel("logs")).to_be_hidden()
    await page.reload()
    await surface.ready()
    await press("6")
    await expect(surface.panel("logs")).to_be_hidden()


async def test_roles_names_and_live_regions(surface: Surface) -> None:
    page = surface.page
    await surface.open()
    tabs = page.get_by_role("tablist").get_by_role("tab")
    await expect(tabs).to_have_count(6)
    for name in TABS:
        await surface.tab(name)
        tab = page.locator(f"#tab-{name}")
        await expect(tab).to_have_attribute("aria-controls", f"panel-{name}")
        await expect(surface.panel(name)).to_have_attribute("role", "tabpanel")
        await expect(page.get_by_role("tabpanel")).to_have_count(1)
        nameless = await page.evaluate(NAMELESS)
        assert nameless == []
    bar = page.get_by_role("progressbar")
    await expect(bar).to_have_attribute("aria-valuemin", "0")
    await expect(bar).to_have_attribute("aria-valuemax", "100")
    # What changes with every tick is not read out.
    changing = page.locator(".dashboard, .pillars-view, .topbar, .log-area").locator(
        "output, [aria-live], [role=status]"
    )
    assert await changing.count() == 0
    await surface.start("gf01", 8)
    await expect(page.locator("#announcer")).to_contain_text("completed")
    await expect(bar).to_have_attribute("aria-valuenow", "100.0")
