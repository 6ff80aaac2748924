"""What a report file holds, and how large it may grow."""

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_runs import (
    LENGTH,
    MAP_IMAGES,
    make_dataset,
    make_pictures,
    make_protocol,
    make_run,
    make_samples,
    make_table,
)

from fastreid.utils.errors import UserError
from fastreid.visualization import SearchHit, SearchResult, thumbnails, write_search_page
from fastreid.visualization.chart_png import save_chart, save_table
from fastreid.visualization.charts import Chart, Series
from fastreid.visualization.figures import build_figures
from fastreid.visualization.html import PAGE_BYTES, write_page
from fastreid.visualization.pngs import write_pngs
from fastreid.visualization.report import write_report
from fastreid.visualization.search_page import FRAMEWORK


def page_data(page: Path) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1]
    )


def page_text(page: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text().partition("<main")[2]))


def test_the_page_loads_nothing_and_holds_each_picture_once(report):
    content = report.read_text()
    markup = re.sub(r"<script.*?</script>", "", content, flags=re.S)
    assert not re.search(r"(src|href|action)\s*=\s*[\"'](?!#|data:)", markup)
    assert "@import" not in content
    assert "default-src 'none'" in content
    images = page_data(report)["images"]
    assert len({image["file"] for image in images}) == len(images) > 50
    assert all(content.count(image["src"]) == 1 for image in images)


def test_a_list_tells_rank_distance_match_and_the_next_true_match(report):
    data = page_data(report)
    assert len(data["lists"]) == 24
    for item in data["lists"]:
        person = data["images"][item["image"]]["text"].rpartition(" ")[2]
        for row in item["rows"]:
            found = [*row["found"], *filter(None, [row["next"]])]
            for each in found:
                other = data["images"][each["image"]]["text"].rpartition(" ")[2]
                assert each["match"] == (other == person)
            assert [each["rank"] for each in row["found"]] == list(range(1, LENGTH + 1))
            assert row["next"] is None or (row["next"]["rank"] > LENGTH and row["next"]["match"])
            values = [each["value"] for each in found]
            assert values == sorted(values)
            assert row["first"] == min((each["rank"] for each in found if each["match"]), default=None)


def test_names_are_text_and_never_markup(report, tmp_path):
    assert "<b>" not in report.read_text().partition("<body>")[2]
    picture = str(tmp_path / "</script><img src=x onerror=alert(1)>.png").replace("</", "<")
    Image.new("RGB", (8, 16)).save(picture)
    write_search_page(tmp_path / "page.html", [SearchResult(picture, [], "</script><script>alert(1)")])
    assert (tmp_path / "page.html").read_text().count("</script>") == 2
    assert page_data(tmp_path / "page.html")["images"][0]["text"] == "</script><script>alert(1)"


def test_one_run_without_comparison(tmp_path):
    datasets = [make_protocol(make_samples(make_pictures(tmp_path / "pictures", 60, 60), 6), 20)]
    tables = [make_table([[1, 0.5], [0.5, 1]], name) for name in ("a b", "a+b", "c" * 300)]
    runs = [make_run(datasets, "Stage 1", 1.0, 0, distractors=9)._replace(tables=tables)]
    figures = build_figures(datasets, runs)
    write_report(tmp_path / "report.html", datasets, runs, figures, queries=8)
    text = page_text(tmp_path / "report.html")
    assert "Better and worse" not in text
    assert "Shown: 8 of 20 queries of TOY" in text
    assert "Settings that differ" not in text
    date = r"Written on \d+ \w+ 20\d\d, \d\d:\d\d UTC"
    assert re.search(date, (tmp_path / "report.html").read_text())
    written = write_pngs(tmp_path / "report", datasets, runs[0], figures)
    assert {path.stem for path in written} == {
        *("cmc_TOY", "precision_recall_TOY", "cameras_TOY", "rank_lists_TOY"),
        *("feature_map_Stage_1", "view_gap_Stage_1"),
        *("a_b_Stage_1", "a_b_Stage_1_2", "c" * 200),
    }
    for path in written:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.std() > 5, path
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, path


def test_tables_of_the_methods_are_named_by_their_runs_and_equal_ones_shown_once(tmp_path):
    datasets = [make_protocol(make_samples(make_pictures(tmp_path / "pictures", 60, 60), 6), 20)]
    close, far = [[1, 0.5], [0.5, 1]], [[1, 0.1], [0.1, 1]]

    def shown(first: list, second: list) -> list[str]:
        runs = [
            make_run(datasets, name, 1.0, 0)._replace(tables=tables)
            for name, tables in (("A", first), ("B", second))
        ]
        figures = build_figures(datasets, runs)
        write_report(tmp_path / "report.html", datasets, runs, figures, queries=2)
        text = page_text(tmp_path / "report.html")
        assert all(table.title in text for table in figures.tables)
        return [table.name for table in figures.tables]

    almost = [[1, 0.5 + 1e-8], [0.5, 1]]
    assert shown([make_table(close)], [make_table(almost)]) == ["prototypes_A"]
    assert shown([make_table(close)], [make_table(far)]) == ["prototypes_A", "prototypes_B"]
    assert shown([make_table(close)], [make_table(close, "others")]) == ["prototypes_A", "others_B"]
    assert shown([], []) == []
    assert "to show of the views" not in page_text(tmp_path / "report.html")


def test_the_view_gap_stands_beside_a_matrix_of_views_for_each_run_at_equal_terms(tmp_path):
    samples = make_samples(make_pictures(tmp_path / "pictures", 120, 120), 5)
    aerial, ground = ([sample for sample in samples if sample.viewid == view] for view in (0, 1))
    datasets = [make_protocol(aerial, 20, "AA"), make_protocol(ground, 20, "GG"), make_protocol(samples, 30)]
    datasets.append(make_dataset("A2G", aerial, ground))
    runs = [make_run(datasets, name, 1.5, 0, distractors=9) for name in ("Stage 2", "Stage 1")]
    figures = build_figures(datasets, runs)
    write_report(tmp_path / "report.html", datasets, runs, figures, queries=2)

    values = {name: summary.metrics["mAP@1:9"] for name, summary in runs[0].protocols.items()}
    table = figures.at_equal_terms[0]
    names = ["aerial", "ground", "aerial and\nground"]
    assert (table.title, table.row_names, table.column_names) == ("mAP@1:9, Stage 2", names, names)
    assert table.values == [
        [values["AA"], values["A2G"], None],
        [None, values["GG"], None],
        [None, None, values["TOY"]],
    ]
    assert table.notes[0][1] == f"A2G {values['A2G']:.1f}"
    within, across = (values["AA"] + values["GG"]) / 2, values["A2G"]
    text = page_text(tmp_path / "report.html")
    means = f"{within:.1f} {across:.1f} {within - across:.1f}"
    assert f"within a view across views gap, points Stage 2 {means} Stage 1 " in text
    assert "mAP@1:9, Stage 1 query \\ gallery aerial ground aerial and ground" in text


@pytest.mark.parametrize("distractors", [0, 9])
def test_no_gap_is_shown_without_protocols_of_both_kinds_and_no_section_when_off(tmp_path, distractors):
    datasets = [make_protocol(make_samples(make_pictures(tmp_path / "pictures", 60, 60), 6), 20)]
    runs = [make_run(datasets, "Stage 1", 1.0, 0, distractors=distractors)]
    figures = build_figures(datasets, runs)
    write_report(tmp_path / "report.html", datasets, runs, figures, queries=2)
    text = page_text(tmp_path / "report.html")
    assert ("View gap" in text) == ("mAP@1:9, Stage 1" in text) == bool(distractors)
    assert "within a view" not in text


def test_lists_and_map_pictures_without_room_are_left_out_and_the_page_says_so(tmp_path):
    datasets = [make_protocol(make_samples(make_pictures(tmp_path / "pictures", 60, 60), 6), 20)]
    runs = [make_run(datasets, "Stage 1", 1.0, 0)]
    figures, page = build_figures(datasets, runs), tmp_path / "report.html"
    write_report(page, datasets, runs, figures, 20)
    everything = page.stat().st_size
    limit = everything - 50_000
    lists = write_report(page, datasets, runs, figures, 20, page_bytes=limit)
    assert page.stat().st_size <= limit
    assert lists.cut
    assert 0 < lists.shown["TOY"] == len(page_data(page)["lists"]) < 20
    assert f"Shown: {lists.shown['TOY']} of 20 queries of TOY" in page_text(page)
    assert "kept under 20 MB" in page_text(page)


def test_pictures_of_the_map_are_those_of_its_points(report):
    data = page_data(report)
    for chart in data["charts"]:
        for series in chart["series"] if chart["kind"] == "points" else ():
            assert len(series["images"]) == len(series["points"]) > 10
            assert [data["images"][number]["text"].rpartition(" ")[2] for number in series["images"]] == [
                label.split(",")[0].removeprefix("person ") for label in series["labels"]
            ]


def test_a_gallery_of_50_000_gives_a_small_page_from_little_memory(tmp_path, monkeypatch):
    datasets = [make_protocol(make_samples(make_pictures(tmp_path / "pictures", 50_200, 200), 5000), 200)]
    opened = []
    original = thumbnails.thumbnail_uri
    monkeypatch.setattr(
        thumbnails, "thumbnail_uri", lambda path, box: opened.append(path) or original(path, box)
    )
    tracemalloc.start()
    runs = [make_run(datasets, "Stage 1", 0.7, 0, width=8)]
    lists = write_report(tmp_path / "report.html", datasets, runs, build_figures(datasets, runs), queries=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    images = page_data(tmp_path / "report.html")["images"]
    assert lists.shown["TOY"] == 30
    assert len(opened) == len(set(opened)) == len(images) <= 30 * (LENGTH + 2) + MAP_IMAGES
    assert (tmp_path / "report.html").stat().st_size < PAGE_BYTES
    assert peak < 150e6  # a 200 x 50,000 matrix of Python numbers would take 300 MB and more


def test_a_search_of_many_queries_goes_on_in_further_pages(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 30, 30)
    results = [SearchResult(path, [SearchHit(paths[-1], 0.5), SearchHit(path, 0.25)]) for path in paths]
    page = tmp_path / "new folder" / "found #1.html"
    assert write_search_page(page, results).paths == [page]
    assert [item["title"] for item in page_data(page)["lists"]] == [f"{number}.png" for number in range(30)]

    pages = write_search_page(page, results, page_bytes=FRAMEWORK + 20_000).paths
    assert [path.name for path in pages[:3]] == ["found #1.html", "found #1_2.html", "found #1_3.html"]
    assert all(path.stat().st_size < FRAMEWORK + 20_000 for path in pages)
    titles = [item["title"] for path in pages for item in page_data(path)["lists"]]
    assert titles == [f"{number}.png" for number in range(30)]
    assert f"Page 2 of {len(pages)}" in page_text(pages[1])
    assert re.findall('href="(found.*?)"', pages[1].read_text())[:2] == [
        "found%20%231.html",
        "found%20%231_3.html",
    ]


def test_a_query_that_is_larger_than_a_page_loses_its_last_hits_and_says_so(tmp_path):
    paths = make_pictures(tmp_path / "pictures", 30, 30)
    hits = [SearchHit(path, 0.5) for path in paths]
    results = [SearchResult(paths[0], hits), SearchResult(paths[1], hits[:2])]
    pages = write_search_page(tmp_path / "page.html", results, page_bytes=FRAMEWORK + 20_000).paths
    first = page_data(pages[0])["lists"][0]
    shown = len(first["rows"][0]["found"])
    assert 0 < shown < 30
    assert first["title"] == f"0.png (the first {shown} of 30)"
    assert page_data(pages[-1])["lists"][-1]["title"] == "1.png"


def test_a_page_over_the_limit_is_refused_and_leaves_the_one_before(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("before")
    with pytest.raises(UserError, match="page.html would have 20.0 MB, and 20 are the most"):
        write_page(page, "search.html", {"images": "x" * PAGE_BYTES}, title="", shown=0, total=0)
    assert page.read_text() == "before"


def test_a_file_name_that_is_no_text_is_shown_as_far_as_it_is(tmp_path):
    picture = str(tmp_path / "caf\udce9.png")
    Image.new("RGB", (8, 8)).save(picture)
    write_search_page(tmp_path / "page.html", [SearchResult(picture, [])])
    assert page_data(tmp_path / "page.html")["images"][0]["file"] == "caf?.png"


def test_a_page_or_chart_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/page.html: Is a directory"):
        write_search_page(tmp_path / "page.html", [])
    chart = Chart("line", "cmc", "CMC", "rank", "percent", [Series("run", [(1, 50)])], (1, 2), (0, 100))
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/page.html: Is a directory"):
        save_chart(chart, tmp_path / "page.html")


def test_names_in_a_png_are_text_and_never_formulas(tmp_path):
    name = "$\\frac{$"
    chart = Chart("line", "cmc", name, "rank", name, [Series(name, [(1, 50), (2, 60)])], (1, 2), (0, 100))
    save_chart(chart, tmp_path / "chart.png")
    save_table(
        replace(make_table([[1, 0.5], [0.5, 1]]), title=name, row_names=[name, name]), tmp_path / "t.png"
    )
    assert (tmp_path / "chart.png").stat().st_size > 5_000 < (tmp_path / "t.png").stat().st_size


def test_a_picture_that_is_gone_or_damaged_has_a_placeholder(tmp_path):
    (good,) = make_pictures(tmp_path / "pictures", 1, 1)
    broken, gone = tmp_path / "broken.png", tmp_path / "moved <b>.png"
    broken.write_bytes(b"no picture")
    hits = [SearchHit(str(path), 0.5) for path in (good, broken, gone)]
    assert write_search_page(tmp_path / "page.html", [SearchResult(good, hits)]).lost == 2
    images = page_data(tmp_path / "page.html")["images"]
    assert images[0]["src"].startswith("data:image/webp")
    assert "broken.png" in images[1]["lost"]
    assert (images[2]["lost"], images[2]["file"]) == ("no such file", "moved <b>.png")
