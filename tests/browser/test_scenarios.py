"""Scenario & Config: drafts, what is refused, cloning, the active scenario."""

import re

import pytest
from playwright.async_api import Dialog, expect

from tests.browser.surface import Surface

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="session")]


async def test_a_draft_is_dirty_until_it_is_saved_and_guarded_on_leaving(surface: Surface) -> None:
    page = surface.page
    await surface.open("#/scenarios/line-4")
    editor = surface.panel("scenarios").locator(".editor")
    description = editor.get_by_label("Description")
    await expect(description).not_to_have_value("")
    saved = await description.input_value()
    await expect(editor.get_by_role("button", name="Save", exact=True)).to_be_disabled()

    await description.fill("Edited on the page")
    await expect(editor.locator(".changes")).to_have_text("Not saved: description")
    await expect(page.locator("#tab-scenarios .tab-mark")).to_have_text("not saved")
    await surface.picture("scenarios-dirty")
    assert surface.writes() == []

    # Searching the list, even in vain, does nothing to the draft.
    search = surface.panel("scenarios").get_by_label("Find a scenario")
    await search.fill("nothing is called that")
    await expect(surface.panel("scenarios").locator(".pick-list")).to_contain_text("Nothing found.")
    await description.fill("Edited on the page")
    await search.fill("")
    await expect(page.locator('.pick-list li[data-id="line-4"] .draft-mark')).to_be_visible()

    # Another tab, another scenario, the browser's own back button: all ask first.
    await page.locator("#tab-history").click()
    await expect(surface.dialog).to_contain_text("not saved")
    await surface.dialog.get_by_role("button", name="Keep editing").click()
    await expect(surface.panel("scenarios")).to_be_visible()
    await expect(description).to_have_value("Edited on the page")
    await page.locator('.pick-list li[data-id="gf01"] button').click()
    await expect(surface.dialog).to_contain_text("line-4")
    await page.keyboard.press("Escape")
    await expect(description).to_have_value("Edited on the page")
    await page.evaluate("location.hash = '#/dashboard'")
    await expect(surface.dialog).to_contain_text("not saved")
    await surface.dialog.get_by_role("button", name="Keep editing").click()
    await expect(page).to_have_url(re.compile("#/scenarios/line-4$"))

    # Closing the page asks as well.
    async with page.expect_event("dialog") as asked:
        await page.evaluate("setTimeout(() => location.assign('/health'))")
    dialog: Dialog = await asked.value
    assert dialog.type == "beforeunload"
    await dialog.dismiss()

    # Discarding leaves everything as it was.
    await page.locator("#tab-dashboard").click()
    await surface.dialog.get_by_role("button", name="Discard changes").click()
    await expect(surface.panel("dashboard")).to_be_visible()
    assert surface.writes() == []
    assert (await surface.api("GET", "/scenarios/line-4"))["description"] == saved
    await surface.tab("scenarios")
    await expect(description).to_have_value(saved)


async def test_what_the_service_refuses_is_shown_at_the_field_and_the_draft_stays(surface: Surface) -> None:
    await surface.open("#/scenarios/line-4")
    editor = surface.panel("scenarios").locator(".editor")
    ticks = editor.get_by_label("Ticks", exact=True)
    await editor.get_by_label("Description").fill("half of an edit")
    await ticks.fill("0")
    surface.tolerated.append("422")
    await editor.get_by_role("button", name="Save", exact=True).click()
    await expect(ticks).to_have_attribute("aria-invalid", "true")
    await expect(ticks).to_be_focused()
    said = editor.locator(".field", has=surface.page.get_by_label("Ticks", exact=True)).locator(".field-error")
    await expect(said).not_to_have_text("")
    await surface.picture("scenarios-refused")
    assert (await surface.api("GET", "/scenarios/line-4"))["description"] != "half of an edit"
    await expect(editor.get_by_label("Description")).to_have_value("half of an edit")
    await ticks.fill("12")
    await expect(said).to_have_text("")
    await editor.get_by_role("button", name="Discard").click()
    await surface.dialog.get_by_role("button", name="Discard changes").click()
    await expect(ticks).not_to_have_value("12")


async def test_saving_as_makes_a_copy_which_can_be_edited_activated_and_run(surface: Surface) -> None:
    page = surface.page
    await surface.open("#/scenarios/ring-5")
    editor = surface.panel("scenarios").locator(".editor")
    name = f"copy-{await page.evaluate('Date.now()')}"
    await editor.get_by_label("Ticks", exact=True).fill("40")
    await editor.get_by_role("button", name="Save as").click()

    # An id that exists is refused at the field.
    surface.tolerated.append("409")
    await surface.dialog.get_by_label("Id").fill("gf01")
    await surface.dialog.get_by_role("button", name="Save as").click()
    await expect(surface.dialog.get_by_label("Id")).to_have_attribute("aria-invalid", "true")
    await surface.dialog.get_by_label("Id").fill(name)
    await surface.dialog.get_by_role("button", name="Save as").click()
    await expect(surface.dialog).to_have_count(0)
    await expect(editor.locator(".card-title")).to_have_text(name)
    await expect(editor.get_by_label("Ticks", exact=True)).to_have_value("40")
    assert page.url.endswith(f"#/scenarios/{name}")
    assert (await surface.api("GET", "/scenarios/ring-5"))["core_params"]["ticks_total"] == 5

    await editor.get_by_label("Description").fill("My own ring")
    await editor.get_by_label("Tags").fill("mine, ring")
    await editor.get_by_role("button", name="Save", exact=True).click()
    await expect(editor.get_by_role("button", name="Save", exact=True)).to_be_disabled()
    await expect(editor.locator(".changes")).to_have_text("Saved")
    detail = await surface.api("GET", f"/scenarios/{name}")
    assert (detail["description"], detail["tags"]) == ("My own ring", ["mine", "ring"])

    await editor.get_by_role("button", name="Set active").click()
    await expect(page.locator(".scenario-chip strong")).to_have_text(name)
    await expect(editor.locator(".badges")).to_contain_text("Active")
    await expect(page.locator(f'.pick-list li[data-id="{name}"]')).to_contain_text("Active")
    assert (await surface.api("GET", "/state"))["active_scenario"]["id"] == name

    await surface.control("start").click()
    await surface.tab("dashboard")
    await expect(surface.panel("dashboard").locator(".banner")).to_contain_text("completed")
    await expect(surface.panel("dashboard").locator(".tile").first).to_contain_text("of 40")


async def test_what_somebody_else_changes_arrives_without_a_reload(surface: Surface) -> None:
    page = surface.page
    await surface.open("#/scenarios/gf01")
    description = surface.panel("scenarios").locator(".editor").get_by_label("Description")
    await expect(description).not_to_have_value("")
    await surface.api("POST", "/scenarios/gf01", {"description": "Edited elsewhere"})
    await expect(description).to_have_value("Edited elsewhere")
    await surface.api("POST", "/scenarios/gf01/activate")
    await expect(page.locator(".scenario-chip strong")).to_have_text("gf01")

    # A draft is not overwritten; saving it over the other's edit is refused, and says what to do.
    await description.fill("Mine")
    await surface.api("POST", "/scenarios/gf01", {"description": "Edited elsewhere again"})
    surface.tolerated.append("409")
    await surface.panel("scenarios").get_by_role("button", name="Save", exact=True).click()
    await expect(surface.panel("scenarios").locator(".form-error")).to_contain_text("revision_mismatch")
    await expect(description).to_have_value("Mine")
    await surface.panel("scenarios").get_by_role("button", name="Discard mine and read again").click()
    await expect(description).to_have_value("Edited elsewhere again")


async def test_the_expert_view_shows_windows_governance_and_topology(surface: Surface) -> None:
    await surface.open("#/scenarios/wide-1000")
    expert = surface.panel("scenarios").locator(".advanced")
    await expert.get_by_text("Expert view").click()
    await expect(expert.locator("table")).to_contain_text("wide-1000 window")
    await expect(expert.locator(".topology-caption")).to_contain_text("1,000 nodes")
    await expect(expert.locator(".topology-drawing")).to_have_count(0)
    await expect(expert.locator(".topology-bars")).to_be_visible()
    await surface.panel("scenarios").locator(".topology").scroll_into_view_if_needed()
    await surface.picture("scenarios-expert")


async def test_a_draft_is_asked_about_before_its_scenario_is_made_active_or_started(surface: Surface) -> None:
    page = surface.page
    await surface.api("POST", "/scenarios/gf01/activate")
    await surface.open("#/scenarios/ring-5")
    editor = surface.panel("scenarios").locator(".editor")
    ticks = editor.get_by_label("Ticks", exact=True)
    await expect(ticks).to_have_value("5")
    await ticks.fill("40")
    activate = editor.get_by_role("button", name="Set active")
    await activate.click()
    await surface.dialog.get_by_role("button", name="Keep editing").click()
    assert surface.writes() == []
    await activate.click()
    await surface.dialog.get_by_role("button", name="Discard changes").click()
    await expect(page.locator(".scenario-chip strong")).to_have_text("ring-5")
    await expect(ticks).to_have_value("5")

    await ticks.fill("6")
    await surface.control("start").click()
    await expect(surface.dialog).to_contain_text("ring-5 has changes that are not saved")
    await surface.dialog.get_by_role("button", name="Keep editing").click()
    await surface.control("start").click()
    await surface.dialog.get_by_role("button", name="Save", exact=True).click()
    await expect(page.locator(".course-text")).to_contain_text("6 / 6")
    assert surface.writes() == ["POST /scenarios/ring-5/activate", "POST /scenarios/ring-5", "POST /runs"]
    await surface.api("POST", "/scenarios/ring-5", {"core_params": {"ticks_total": 5}})


async def test_a_scenario_that_could_not_be_opened_can_be_asked_for_again(surface: Surface) -> None:
    page = surface.page
    await surface.open("#/scenarios/line-4")
    title = surface.panel("scenarios").locator(".card-title")
    await expect(title).to_have_text("line-4")
    await surface.refuse("**/scenarios/gf01", 500, "internal", times=1)
    choice = page.locator('.pick-list li[data-id="gf01"] button')
    await choice.click()
    await expect(surface.toast("The scenario gf01 could not be opened")).to_be_visible()
    await expect(page).to_have_url(re.compile("#/scenarios/line-4$"))  # what is shown
    await choice.click()
    await expect(title).to_have_text("gf01")
    await expect(page).to_have_url(re.compile("#/scenarios/gf01$"))
