"""The pages with names of every kind, on a phone, by keyboard and on paper."""

import io

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image
from toy_runs import make_pictures, make_protocol, make_run, make_samples

from fastreid.comparison.tables import TextTable
from fastreid.visualization.figures import build_figures
from fastreid.visualization.html import write_page
from fastreid.visualization.report import write_report
from fastreid.visualization.thumbnails import thumbnail_uri

MARKUP = '"it\'s" </script><script>alert(1)</script>&amp;'
HEBREW, LONG = "\u05e8" * 100, "W" * 100


@pytest.fixture(scope="module")
def hard_report(tmp_path_factory):
    """A report of many protocols and two runs whose names are markup, from right to left, or endless."""
    folder = tmp_path_factory.mktemp("hard")
    samples = make_samples(make_pictures(folder / "pictures", 60, 60), 6)
    names = (MARKUP, HEBREW, LONG, *(f"PROTOCOL_{number}" for number in range(9)))
    datasets = [make_protocol(samples, 20, name) for name in names]
    runs = [
        make_run(datasets, name, 1.0, seed, distractors=9)
        for seed, name in enumerate((MARKUP * 3, HEBREW + LONG))
    ]
    write_report(folder / "report.html", datasets, runs, build_figures(datasets, runs), queries=2)
    return folder / "report.html"


@pytest.mark.parametrize("width", [390, 1300])
def test_names_of_every_kind_are_text_that_stays_on_the_page(open_page, hard_report, width):
    page = open_page(hard_report, width)
    page.locator("#protocol").select_option("all")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    table = page.locator("#results table")
    assert table.evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
    assert page.locator(".card .row-head b").first.inner_text() == MARKUP * 3
    labels = page.locator("#changes .axes text").evaluate_all("all => all.map(one => one.textContent.length)")
    assert max(labels) < 70


def test_a_page_without_room_for_lists_says_so(open_page, tmp_path):
    datasets = [make_protocol(make_samples(make_pictures(tmp_path / "pictures", 60, 1), 6), 20)]
    runs = [make_run(datasets, "Stage 1", 1.0, 0)]
    figures = build_figures(datasets, runs)
    write_report(tmp_path / "report.html", datasets, runs, figures, queries=2, page_bytes=1)
    page = open_page(tmp_path / "report.html")
    assert page.locator("#count").inner_text() == "0 of 0 rank lists"
    assert page.get_by_text("a report is kept under 20 MB").is_visible()
    assert not page.locator("#more").is_visible()


def test_the_keyboard_stays_in_the_viewer_at_both_ends_of_a_list(open_page, report):
    page = open_page(report)
    page.locator(".card .strip button").first.focus()
    page.keyboard.press("Enter")
    rank = page.locator("dialog .large-head").nth(1)
    first = rank.inner_text()
    for _ in range(20):
        page.keyboard.press("Enter")  # on "Next"
    last = rank.inner_text()
    assert page.evaluate("document.activeElement.name") == "after"
    page.keyboard.press("ArrowLeft")
    assert first != rank.inner_text() != last
    page.keyboard.press("Shift+Tab")
    for _ in range(20):
        page.keyboard.press("Enter")  # on "Before"
    assert rank.inner_text() == first
    page.keyboard.press("ArrowRight")
    assert rank.inner_text() != first


def test_a_chart_can_be_read_on_a_phone(open_page, report):
    page = open_page(report, 390, 844)
    sizes = page.locator("#curves .axes").first.evaluate(
        """axes => [...axes.querySelectorAll("text")].map(text => {
            const {a, b} = text.getScreenCTM();
            return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
        })"""
    )
    assert min(sizes) > 9.5  # pixels


def test_paper_is_light_and_has_no_controls(open_page, report):
    page = open_page(report, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    for control in ("nav", "#theme", "#filters", "#more", ".readout >> nth=0", "summary >> nth=0"):
        assert not page.locator(control).is_visible(), control
    assert page.locator(".card .frame img").first.is_visible()
    strip = page.locator(".card .strip").first
    assert strip.evaluate("one => one.scrollWidth <= one.clientWidth")
    assert strip.locator(".mark").first.evaluate("one => getComputedStyle(one).printColorAdjust") == "exact"
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert pixels[600:, :20].mean() > 200


def test_a_comparison_is_stacked_on_a_phone(open_page, tmp_path):
    (picture,) = make_pictures(tmp_path / "pictures", 1, 1, size=(1500, 300))
    headers = ["method", *(f"CARGO_PROTOCOL_{number}" for number in range(6))]
    table = TextTable("mAP, percent", headers, [[name, *["50.0 \u00b1 1.0"] * 6] for name in (LONG, "b")])
    values = {
        "title": LONG,
        "tables": [table],
        "legend": [],
        "picture": Markup(thumbnail_uri(picture, (1500, 300))),
    }
    write_page(tmp_path / "comparison.html", "comparison.html", {}, **values)
    page = open_page(tmp_path / "comparison.html", 390, 844)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("table").evaluate("table => table.scrollWidth <= table.parentElement.clientWidth")
    label = page.locator("td").first.evaluate("cell => getComputedStyle(cell, '::before').content")
    assert label == '"CARGO_PROTOCOL_0"'
    shown = page.locator(".plot").bounding_box()["width"]
    assert shown > 1000  # of 1500: its words can be read, and it scrolls
