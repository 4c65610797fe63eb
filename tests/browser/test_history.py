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

    # The run that was in view before can be opened again.
    await panel.locator(f'tr[data-run="{second}"] .when').click()
    await expect(side.locator(".card-title")).to_have_text(second)
    await compare.click()
    await expect(side).to_contain_text("Comparison")
    await panel.locator(f'tr[data-run="{second}"] .when').click()
    await expect(side.locator(".card-title")).to_have_text(second)


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

    # However long a reason is, what is below it stays within reach.
    reason = surface.panel("dashboard").locator(".banner-text span")
    await reason.evaluate("node => { node.textContent = 'no end of it '.repeat(900); }")
    box = await surface.panel("dashboard").locator(".banner").bounding_box()
    assert box is not None
    assert box["height"] < 300
    await surface.page.keyboard.press("s")  # no start before it is acknowledged
    assert surface.writes() == ["POST /runs"]
    await surface.control("reset").click()
    await surface.expect_controls(start=True)
    await expect(surface.pill).to_have_text("Idle")
    assert (await surface.api("GET", "/state"))["run"] is None


async def test_runs_whose_snapshots_are_equal_are_said_to_be(surface: Surface) -> None:
    first, second = await run(surface, "line-4", 6), await run(surface, "line-4", 6)
    await surface.open("#/history")
    panel = surface.panel("history")
    await panel.get_by_label(f"Compare {first}").check()
    await panel.get_by_label(f"Compare {second}").check()
    await panel.get_by_role("button", name="Compare", exact=True).click()
    await expect(panel.locator(".detail")).to_contain_text("The two snapshots are equal.")
    await surface.picture("history-equal")


async def test_a_history_that_can_not_be_read_is_not_an_empty_one(surface: Surface) -> None:
    await run(surface, "gf01", 8)
    await surface.refuse("**/history?*", 503, "index_unavailable")
    await surface.open("#/history")
    panel = surface.panel("history")
    await expect(panel.locator(".empty").first).to_contain_text("could not be read: index_unavailable on purpose")
    await expect(panel.get_by_text("No runs yet")).to_have_count(0)
    await expect(panel.get_by_role("button", name="Older runs")).to_be_hidden()
    await surface.page.unroute("**/history?*")
    await panel.get_by_role("button", name="Try again").click()
    await expect(panel.locator("tbody tr").first).to_be_visible()


async def test_details_keep_their_focus_when_nothing_has_changed(surface: Surface) -> None:
    run_id = await run(surface, "gf01", 8)
    await surface.open(f"#/history/{run_id}")
    side = surface.panel("history").locator(".detail")
    await expect(side.get_by_role("button", name="Export")).to_be_enabled()
    await side.get_by_role("button", name="Logs").focus()
    await run(surface, "gf01", 9)  # the history is read again
    await expect(surface.panel("history").locator("tbody tr").first).not_to_have_attribute("data-run", run_id)
    await surface.quiet()
    await expect(side.get_by_role("button", name="Logs")).to_be_focused()
