"""What the issue shows when it is done: ring-5 over 200,000 ticks, watched to its end, with all of its log."""

import pytest
from playwright.async_api import expect

from tests.browser.surface import Surface

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

MINUTES = 240_000


async def test_ring_5_over_200_000_ticks(surface: Surface) -> None:
    page = surface.page
    await surface.open()
    await surface.start("ring-5", 200_000)
    await surface.expect_ticks_beyond(0)
    banner = surface.panel("dashboard").locator(".banner")
    await expect(banner).to_contain_text("completed", timeout=MINUTES)
    await expect(page.locator(".topology-drawing title").first).to_contain_text("n1 8, n2 1, n3 0, n4 0, n5 1")
    await surface.picture("long-1-dashboard")

    # Some 400,000 entries: those that fit are kept, the page says how many are not, and it stays quick.
    await banner.get_by_role("button", name="Logs").click()
    counts = surface.panel("logs").locator(".log-counts")
    await expect(counts).to_contain_text("complete", timeout=MINUTES)
    await expect(counts).to_contain_text("oldest left out")
    lines = surface.panel("logs").locator(".log-line:visible")
    await expect(lines.last).to_contain_text("run_end")
    assert await lines.count() < 100
    await surface.panel("logs").get_by_label("Search in the entries").fill("tick 199999 complete")
    await expect(lines).to_have_count(1)
    await surface.panel("logs").get_by_label("Search in the entries").fill("run_end")
    await expect(lines).to_have_count(1)
    await surface.picture("long-2-logs")
