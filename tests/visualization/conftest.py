"""A report on fabricated runs, and a real browser to read it with."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_runs import make_pictures, make_protocol, make_run, make_samples

from fastreid.visualization.figures import build_figures
from fastreid.visualization.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 120_000  # ms, for a machine that is busy
REQUIRED = "FASTREID_NEED_BROWSER"  # set where a missing browser is an error


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """Two protocols, two runs, 24 rank lists."""
    folder = tmp_path_factory.mktemp("report")
    samples = make_samples(make_pictures(folder / "pictures", 100, 100), 10)
    datasets = [
        make_protocol(samples, 30, "FIRST"),
        make_protocol(samples[::-1], 40, "SECOND <b>&"),
    ]
    runs = [
        make_run(datasets, "Stage 2", 1.0, 0, generates=True)._replace(checkpoint=write_training(folder)),
        make_run(datasets, "Stage 1", 1.2, 1),
    ]
    write_report(folder / "report.html", datasets, runs, build_figures(datasets, runs), queries=12)
    return folder / "report.html"


def write_training(folder: Path) -> str:
    """A checkpoint's path, with the metrics.json of a training beside it, one of whose lines is cut off."""
    lines = [
        {"iteration": step, "total_loss": 9 / step, "loss_cls": 6 / step, "lr": 1} for step in range(1, 501)
    ]
    lines += [{"iteration": step, "FIRST/mAP": step / 10, "SECOND/mAP": step / 9} for step in (250, 500)]
    text = "\n".join(map(json.dumps, lines)) + '\n{"iteration": 501, "total_lo'
    (folder / "metrics.json").write_text(text)
    return str(folder / "model_best.pth")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A headless Chromium. Without one the test skips, or fails where one must be there."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        message = f"no Chromium on the PATH ({', '.join(BROWSERS)}): install one to test the pages"
        if os.environ.get(REQUIRED):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """`open_page(file, width, height, scheme)`: a page that must ask for nothing, complain of nothing."""
    contexts, complaints, requests = [], [], []

    def open_it(file: Path, width: int = 1280, height: int = 900, scheme: str = "light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len({url for url in requests if url.startswith("file:")}) == 1  # the page
