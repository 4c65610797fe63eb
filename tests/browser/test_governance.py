"""Governance & Budgets: nothing is applied before Save, and what is refused blocks nothing."""

import pytest
from playwright.async_api import Route, expect

from tests.browser.library import MARKUP
from tests.browser.surface import Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]

BASE = {
    "mode": "OBSERVE",
    "budget_knobs": {"max_actions_per_window": 0, "max_proposals_per_window": 0, "max_topology_changes": 0},
}


async def test_governance_is_applied_on_save_only_and_reaches_the_next_run(surface: Surface) -> None:
    page = surface.page
    await surface.api("POST", "/governance", BASE)
    before = await surface.api("GET", "/governance")
    await surface.open("#/governance")
    panel = surface.panel("governance")
    save = panel.get_by_role("button", name="Save", exact=True)
    await expect(panel.get_by_role("radio", name="Observe")).to_be_checked()
    await expect(save).to_be_disabled()

    await panel.get_by_role("radio", name="Dry run").check()
    await panel.get_by_label("Max proposals per window", exact=True).fill("7")
    await panel.get_by_label("Max topology changes: no limit").check()
    await expect(panel.locator(".changes")).to_contain_text("Mode: OBSERVE → DRY_RUN")
    await expect(panel.locator(".changes")).to_contain_text("Max proposals per window: 0 → 7")
    await expect(panel.locator(".changes")).to_contain_text("Max topology changes: 0 → no limit")
    await surface.picture("governance-draft")
    assert surface.writes() == []
    assert await surface.api("GET", "/governance") == before

    await save.click()
    await expect(panel.locator(".changes")).to_contain_text("Saved")
    await expect(save).to_be_disabled()
    after = await surface.api("GET", "/governance")
    assert after["mode"] == "DRY_RUN"
    assert after["budget_knobs"] == {"max_actions_per_window": 0, "max_proposals_per_window": 7}
    await expect(panel.locator(".hash")).to_have_attribute("title", after["policy_set_hash"])

    await surface.start("gf01", 8)
    await surface.expect_controls(start=True)
    run = (await surface.api("GET", "/state"))["run"]
    governance = (await surface.api("GET", f"/history/{run['run_id']}"))["governance"]
    assert governance["mode"] == "DRY_RUN"
    await surface.tab("pillars")
    await expect(surface.panel("pillars")).to_contain_text("DRY_RUN")
    await expect(surface.panel("pillars").locator(".pillar")).to_have_count(5)
    await surface.picture("pillars")
    await page.evaluate("location.hash = '#/governance'")

    # Leaving with a draft asks; discarding changes nothing.
    await panel.get_by_role("radio", name="Off").check()
    await page.locator("#tab-pillars").click()
    await surface.dialog.get_by_role("button", name="Discard changes").click()
    await expect(surface.panel("pillars")).to_be_visible()
    assert (await surface.api("GET", "/governance"))["mode"] == "DRY_RUN"


async def test_a_refused_change_is_said_at_its_field_and_blocks_nothing(surface: Surface) -> None:
    await surface.api("POST", "/governance", BASE)
    await surface.open("#/governance")
    panel = surface.panel("governance")
    actions = panel.get_by_label("Max actions per window", exact=True)
    await actions.fill("-3")
    surface.tolerated += ["422", "409"]
    await panel.get_by_role("button", name="Save", exact=True).click()
    await expect(actions).to_have_attribute("aria-invalid", "true")
    await expect(actions).to_be_focused()
    await surface.picture("governance-refused")
    assert (await surface.api("GET", "/governance"))["budget_knobs"]["max_actions_per_window"] == 0

    # Everything still works: another value is taken.
    await actions.fill("3")
    await panel.get_by_role("button", name="Save", exact=True).click()
    await expect(panel.locator(".changes")).to_contain_text("Saved")
    await expect(actions).not_to_have_attribute("aria-invalid", "true")
    assert (await surface.api("GET", "/governance"))["budget_knobs"]["max_actions_per_window"] == 3

    # Somebody else was faster.
    await actions.fill("4")
    await surface.api("POST", "/governance", BASE)
    await panel.get_by_role("button", name="Save", exact=True).click()
    await panel.get_by_role("button", name="Discard mine and read again").click()
    await expect(actions).to_have_value("0")


async def test_a_preset_only_fills_the_form(surface: Surface) -> None:
    await surface.api("POST", "/governance", BASE)
    presets = await surface.api("GET", "/governance/presets")
    other = next(each for each in presets if each["mode"] != "OBSERVE")
    await surface.open("#/governance")
    panel = surface.panel("governance")
    await panel.locator(f'.preset[data-preset="{other["id"]}"]').click()
    await expect(panel.locator(".changes")).to_contain_text(other["mode"])
    assert surface.writes() == []
    await panel.get_by_role("button", name="Discard").click()
    await surface.dialog.get_by_role("button", name="Discard changes").click()
    await expect(panel.get_by_role("radio", name="Observe")).to_be_checked()


async def test_what_can_not_be_read_can_not_be_edited_and_is_asked_for_again(surface: Surface) -> None:
    await surface.refuse("**/governance", 500, "internal")
    await surface.open("#/governance")
    panel = surface.panel("governance")
    await expect(panel.locator(".form-error").first).to_contain_text("could not be read: internal on purpose")
    await expect(panel.get_by_role("radio", name="Enforce")).to_be_disabled()
    await expect(panel.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    await surface.page.unroute("**/governance")
    await panel.get_by_role("button", name="Try again").click()
    await expect(panel.get_by_role("radio", name="Enforce")).to_be_enabled()
    await expect(panel.locator(".form-error").first).to_be_empty()


async def test_the_audit_shows_every_write_and_what_came_of_it(surface: Surface) -> None:
    page = surface.page
    await surface.open("#/governance")
    audit = surface.panel("governance").locator(".audit")
    newest = audit.locator("tbody tr").first
    await surface.api("POST", "/scenarios/ring-5/activate")
    await surface.api("POST", "/scenarios/markup", {"tags": [MARKUP[:40], "x" * 40]})
    await expect(newest).to_contain_text("scenario.update")  # without a reload
    await expect(newest.locator(".target")).to_have_text("markup")
    await expect(newest.locator(".result")).to_have_text("ok")
    await newest.locator("summary").click()
    await expect(newest.locator("pre")).to_contain_text("onerror")
    await expect(audit.locator("tbody tr").nth(1)).to_contain_text("scenario.activate")

    # What was refused is there as well, with its code.
    refused = await surface.context.request.post(f"{surface.url}/scenarios/no-such-one/activate")
    assert refused.status == 404
    await audit.get_by_role("button", name="Read again").click()
    await expect(newest.locator(".result")).to_have_text("not_found")
    await expect(newest.locator(".target")).to_have_text("no-such-one")
    await expect(audit.locator("details[open]")).to_have_count(1)  # what was opened stays open
    await audit.scroll_into_view_if_needed()
    await surface.picture("audit")
    assert await page.evaluate("window.__owned") is None

    # Older ones on demand.
    async def two_a_page(route: Route) -> None:
        await route.continue_(url=route.request.url.replace("limit=50", "limit=2"))

    await page.route("**/audit?limit=50*", two_a_page)
    await page.reload()
    await surface.ready()
    await expect(audit.locator("tbody tr")).to_have_count(2)
    await audit.get_by_role("button", name="Older entries").click()
    await expect(audit.locator("tbody tr")).to_have_count(4)
