"""History & Exports: filters, pages, comparing two runs, deep links."""

import pytest
from playwright.async_api import Route, expect

from tests.browser.surface import Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]


async def run(surface: Surface, scenario: str, ticks: int) -> str:
    """Run it to its end; returns its id."""
    started = await surface.api("POST", "/runs", {"scenario_id": scenario, "overrides": {"ticks_total": ticks}})
    run_id: str = started["run_id"]
    while (await surface.api("GET", f"/runs/{run_id}"))["phase"] != "ended":
        await surface.page.wait_for_timeout(20)
    return run_id


async def test_filters_pages_and_a_comparison(surface: Surface) -> None:
    page = surface.page
    first, second, faulted = (
        await run(surface, "gf01", 8),
        await run(surface, "gf01", 9),
        await run(surface, "faulty", 8),
    )

    # Two runs a page, so that a few are several pages.
    async def two_a_page(route: Route) -> None:
        await route.continue_(url=route.request.url.replace("limit=50", "limit=2"))

    await page.route("**/history?limit=50*", two_a_page)
    await surface.open("#/history")
    panel = surface.panel("history")
    rows = panel.locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_have_attribute("data-run", faulted)
    await panel.get_by_role("button", name="Older runs").click()
    await expect(panel.locator(f'tr[data-run="{first}"]')).to_have_count(1)
    runs = [await row.get_attribute("data-run") for row in await rows.all()]
    assert runs[:3] == [faulted, second, first]
    assert len(set(runs)) == len(runs)

    await panel.get_by_label("Result").select_option("fault")
    await expect(rows.first).to_have_attribute("data-run", faulted)
    await expect(panel.locator('.result[data-result="completed"]')).to_have_count(0)
    await panel.get_by_label("Result").select_option("")
    await panel.get_by_label("Scenario").select_option("gf01")
    await expect(rows.first).to_have_attribute("data-run", second)
    await expect(panel.locator(f'tr[data-run="{faulted}"]')).to_have_count(0)

    compare = panel.get_by_role("button", name="Compare", exact=True)
    await expect(compare).to_be_disabled()
    await panel.get_by_label(f"Compare {second}").check()
    await panel.get_by_label(f"Compare {first}").check()
    await compare.click()
    side = panel.locator(".detail")
    await expect(side).to_contain_text("Comparison")
    row = side.locator("tr", has_text="config.total_ticks")
    await expect(row.locator(".old")).to_have_text("8")
    await expect(row.locator(".new")).to_have_text("9")
    await surface.picture("history-compare")


async def test_a_link_to_a_run_and_one_to_nothing(surface: Surface) -> None:
    run_id = await run(surface, "gf01", 8)
    await surface.open(f"#/history/{run_id}")
    side = surface.panel("history").locator(".detail")
    await expect(side.locator(".card-title")).to_have_text(run_id)
    await expect(surface.panel("history").locator(f'tr[data-run="{run_id}"]')).to_have_attribute("aria-current", "true")
    surface.tolerated.append("404")
    await surface.page.evaluate("location.hash = '#/history/no-such-run'")
    await expect(side).to_contain_text("no-such-run")
    await expect(surface.toast("no-such-run could not be read")).to_contain_text("404")


async def test_a_fault_is_shown_with_its_reason_and_reset_acknowledges_it(surface: Surface) -> None:
    await surface.open()
    await surface.start("faulty", 8)
    await expect(surface.pill).to_have_text("Fault")
    await surface.expect_controls(reset=True)
    await expect(surface.panel("dashboard").locator(".banner")).to_contain_text("topology_snapshot must be populated")
    await surface.picture("fault")
    await surface.page.keyboard.press("s")  # no start before it is acknowledged
    assert surface.writes() == ["POST /runs"]
    await surface.control("reset").click()
    await surface.expect_controls(start=True)
    await expect(surface.pill).to_have_text("Idle")
    assert (await surface.api("GET", "/state"))["run"] is None
