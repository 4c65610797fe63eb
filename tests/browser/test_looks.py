"""Phone, desktop, light, dark."""

from pathlib import Path

import pytest
from playwright.async_api import ViewportSize, expect

from tests.browser.surface import TABS, Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]

HERE = Path(__file__).parent
TOO_WIDE = (HERE / "too_wide.js").read_text()

TOO_SMALL = (HERE / "too_small.js").read_text()

TOO_FAINT = (HERE / "too_faint.js").read_text()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("phone", ViewportSize(width=390, height=844)),
        ("desktop", ViewportSize(width=1280, height=800)),
    ],
)
async def test_every_tab_fits_and_is_readable_light_and_dark(surface: Surface, name: str, size: ViewportSize) -> None:
    page = surface.page
    await page.set_viewport_size(size)
    await surface.open()
    await surface.start("gf01", 8)
    await surface.expect_controls(start=True)
    for tab in TABS:
        await surface.tab(tab)
        await surface.quiet()
        assert await page.evaluate(TOO_WIDE) == [], tab
        assert await page.evaluate(TOO_SMALL) == [], tab
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            assert await page.evaluate(TOO_FAINT) == [], (tab, scheme)
            await surface.picture(f"{name}-{scheme}-{tab}")
    if name == "phone":
        # A finger hits them.
        boxes = await page.locator(".tab, .controls .button").evaluate_all(
            "nodes => nodes.map(node => node.getBoundingClientRect().toJSON())"
        )
        assert [box for box in boxes if box["width"] < 34 or box["height"] < 34] == []


async def test_the_theme_can_be_chosen_and_is_remembered(surface: Surface) -> None:
    page = surface.page
    await page.emulate_media(color_scheme="dark")
    await surface.open()
    background = "getComputedStyle(document.body.parentElement).backgroundColor"
    dark = await page.evaluate(background)
    toggle = page.get_by_role("button", name="Theme")
    await expect(toggle).to_have_accessible_name("Theme: as the system")
    await toggle.click()
    await expect(toggle).to_have_accessible_name("Theme: light")
    bright = await page.evaluate(background)
    assert bright != dark
    await page.reload()
    await surface.ready()
    assert await page.evaluate(background) == bright
    await toggle.click()
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(background) == dark
