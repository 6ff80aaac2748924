"""The pages in a real browser: nothing is loaded, filters, order, keys, narrow screens, light and dark."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from fastreid.visualization import SearchHit, SearchResult, write_search_page


def shown_values(page, words: str) -> list[float]:
    """The numbers behind `words` in every card, in their order, all cards shown."""
    while page.locator("#more").is_visible():
        page.locator("#more").click()
    texts = page.locator(".card .facts").all_inner_texts()
    return [float(text.split(words)[1].split()[0]) for text in texts]


def pixels_of(page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def test_everything_is_drawn(open_page, report):
    page = open_page(report)
    assert page.locator(".card").count() == 10
    assert page.locator("#count").inner_text() == "12 of 12 rank lists"
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("[...document.images].every(image => image.alt)")
    assert page.locator("figure.chart svg[role=img]").count() == 2 * 2 + 2 + 2 + 2
    assert page.locator("polyline").count() >= 8
    pixels = pixels_of(page)
    assert pixels.std() > 20
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_lists_are_filtered_and_ordered(open_page, report):
    page = open_page(report)
    page.get_by_label("Protocol").select_option("all")
    worst_first = shown_values(page, "AP")
    assert len(worst_first) == 24
    assert worst_first == sorted(worst_first)
    page.get_by_label("Order").select_option("best")
    assert shown_values(page, "AP") == worst_first[::-1]

    page.get_by_label("Protocol").select_option("SECOND <b>&")
    page.get_by_label("Query view").select_option("ground")
    cards = page.locator(".card").all_inner_texts()
    assert 0 < len(cards) < 12
    assert all("SECOND <b>&" in card and "ground view" in card for card in cards)

    page.get_by_label("Protocol").select_option("all")
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("AP to").fill("50")
    page.get_by_label("AP from").fill("10")
    assert shown_values(page, "AP") == [ap for ap in worst_first if 10 <= ap <= 50]
    page.get_by_label("AP to").fill("0")
    assert page.get_by_text("No rank list of the shown ones").is_visible()


def test_a_list_without_a_match_can_be_asked_for(open_page, report):
    page = open_page(report)
    page.get_by_label("no match among").check()
    for row in page.locator(".card .row:first-child").all():
        items = row.locator("> .strip li").evaluate_all("items => items.map(item => item.className)")
        assert "found match" not in items[: items.index("gap")]
        assert items[-1] == "found match"


def test_better_and_worse_lead_to_the_lists(open_page, report):
    page = open_page(report)
    page.get_by_label("Order").select_option("improved")
    changes = page.locator(".card .badge").all_inner_texts()
    assert "better by" in changes[0]
    link = page.locator("a[data-list]").first
    target = link.get_attribute("data-list")
    link.click()
    assert page.evaluate("document.activeElement.id") == target


def test_matches_are_told_without_colour(open_page, report):
    page = open_page(report)
    for kind, mark, words in (("match", "\u2713", "true match"), ("miss", "\u2717", "other person")):
        item = page.locator(f".found.{kind}").first
        assert item.locator(".mark").inner_text() == mark
        assert words in item.locator("img").get_attribute("alt")


def test_the_keyboard_reaches_and_works_everything(open_page, report):
    page = open_page(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert (page.evaluate("document.activeElement.id"), outline) == ("theme", "solid")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"

    page.get_by_label("Order").focus()
    page.keyboard.type("best")
    values = shown_values(page, "AP")
    assert values == sorted(values, reverse=True)

    chart = page.locator(".drawing").first
    chart.focus()
    readout = chart.locator("xpath=following-sibling::p")
    page.keyboard.press("Home")
    first = readout.inner_text()
    page.keyboard.press("ArrowRight")
    assert "queries: AP " in first
    assert readout.inner_text() != first


def test_the_last_more_button_hands_the_focus_on(open_page, report):
    page = open_page(report)
    more = page.locator("#more")
    while more.is_visible():
        more.focus()
        page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.className") == "card"


@pytest.mark.parametrize("width", [320, 390, 820])
def test_narrow_screens_scroll_in_one_direction(open_page, report, width):
    page = open_page(report, width, 800)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    buttons = page.locator("button:visible, select:visible").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(buttons) >= 40  # wide enough for a finger


def test_a_phone_sees_one_protocol_stacked_results_and_pictures_large(open_page, report):
    page = open_page(report, 390, 844)
    table = page.locator("#results table")
    assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
    labels = table.locator("td").evaluate_all(
        "cells => cells.slice(0, 2).map(cell => getComputedStyle(cell, '::before').content)"
    )
    assert labels == ['"Rank-1"', '"Rank-5"']

    titles = page.locator("#curves figcaption:visible, #cameras caption:visible, #generated caption:visible")
    assert titles.count() == 2 + 1 + 1
    assert all("FIRST" in title for title in titles.all_inner_texts())
    page.get_by_label("Protocol").select_option("SECOND <b>&")
    assert all("SECOND <b>&" in title for title in titles.all_inner_texts())

    row = page.locator(".card .strip").first
    row.locator("button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    viewer = page.locator("dialog.viewer")
    second = row.locator("img").nth(1).get_attribute("src")
    assert viewer.locator("img").nth(1).get_attribute("src") == second
    assert viewer.locator(".large-head").nth(1).inner_text().startswith("Rank 2, ")
    assert viewer.locator("img").nth(1).bounding_box()["height"] > 300
    page.keyboard.press("ArrowRight")
    assert viewer.locator(".large-head").nth(1).inner_text().startswith("Rank 3, ")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert page.evaluate("document.activeElement.closest('.strip') !== null")


def test_a_generated_view_is_told_and_a_point_of_the_map_shows_its_picture(open_page, report):
    page = open_page(report)
    block = page.locator(".card .generated").first
    assert [text.split(":")[0] for text in block.locator(".row-head").all_inner_texts()] == [
        "generated aerial",
        "generated ground",
    ]
    assert block.locator(".found.match, .found.miss").count() == 10
    area = page.locator("#views .drawing").first
    area.focus()
    page.keyboard.press("Home")
    person = area.locator("xpath=following-sibling::p").inner_text().split(",")[0]
    preview = area.locator(".preview")
    assert preview.evaluate("image => image.complete && image.naturalWidth > 0")
    assert page.evaluate(
        "source => pageData.images.find(image => image.src === source).text", preview.get_attribute("src")
    ).endswith(person)
    fill = "path => getComputedStyle(path).fill"
    by_person = area.locator("path").first.evaluate(fill)
    page.get_by_label("Colours").first.select_option("view")
    assert area.locator("path").first.evaluate(fill) != by_person


def contrast(page, selector: str) -> float:
    """WCAG contrast of an element's text against the nearest opaque background."""
    colours = page.locator(selector).first.evaluate(
        """element => {
            const rgb = (text) => {
                const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
                const context = canvas.getContext("2d");
                context.fillStyle = text; context.fillRect(0, 0, 1, 1);
                return [...context.getImageData(0, 0, 1, 1).data];
            };
            let behind = element;
            while (rgb(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
            return [rgb(getComputedStyle(element).color), rgb(getComputedStyle(behind).backgroundColor)];
        }"""
    )
    channels = np.array(colours)[:, :3] / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(open_page, report, scheme):
    page = open_page(report, scheme=scheme)
    brightness = pixels_of(page)[600:, :20].mean()  # the margin
    assert brightness > 200 if scheme == "light" else brightness < 50
    texts = (
        *("h1", ".subtitle", ".lead", ".caption.faint", "nav a", ".badge", "summary", ".best", ".small"),
        *(".match .mark", ".miss .mark", ".better-text", ".worse-text", ".matrix td[style]", ".readout"),
    )
    assert {text: round(contrast(page, text), 1) for text in texts if contrast(page, text) < 4.5} == {}


def test_the_switch_wins_over_the_system_and_is_remembered(open_page, report):
    page = open_page(report, scheme="dark")
    page.get_by_role("button", name="Light mode").click()
    assert pixels_of(page)[600:, :20].mean() > 200
    page.reload()
    assert page.get_by_role("button", name="Dark mode").is_visible()


def test_names_landmarks_and_headings(open_page, report):
    page = open_page(report)
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    nameless = page.locator("select, input, button, [tabindex='0'], section, nav, table").evaluate_all(
        """all => all.filter(one => !(one.labels?.length || one.ariaLabel || one.textContent.trim()
            || one.querySelector("img[alt]") || one.getAttribute("aria-labelledby"))
        ).map(one => one.outerHTML)"""
    )
    assert nameless == []
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.locator("table").evaluate_all("all => all.every(one => one.querySelector('th[scope]'))")


def test_search_results(open_page, tmp_path):
    picture = tmp_path / "person.png"
    Image.effect_noise((24, 48), 90).convert("RGB").save(picture)
    hits = [SearchHit(str(picture), 1 - rank / 10, "ground view") for rank in range(4)]
    write_search_page(tmp_path / "search.html", [SearchResult(str(picture), hits)] * 12)
    page = open_page(tmp_path / "search.html", 360, 700)
    assert page.locator(".card").count() == 10
    page.get_by_role("button", name="Show more").click()
    assert page.locator(".card").count() == 12
    assert page.locator(".card .found.unknown img").first.get_attribute("alt") == (
        "Rank 1, similarity 1.000: ground view"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 360
