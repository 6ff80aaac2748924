"""The files of a comparison: tables, figures for programs, a plot and a page."""

import base64
import io
from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from fastreid.comparison.summary import Comparison
from fastreid.comparison.tables import csv_text, latex, legend, markdown, reading_tables
from fastreid.utils.file_io import atomic_write, named_output, write_json
from fastreid.visualization.html import write_page

DPI = 120


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.`` md, csv, tex, json, png and html; return their paths.

    Raises:
        UserError: if one cannot be written.
    """
    picture = draw(comparison)
    texts = {"md": markdown(comparison), "csv": csv_text(comparison), "tex": latex(comparison)}
    paths = {kind: folder / f"comparison.{kind}" for kind in (*texts, "json", "png", "html")}
    for kind, text in texts.items():
        with named_output(paths[kind]), atomic_write(paths[kind], "w") as file:
            file.write(text)
    with named_output(paths["json"]):
        write_json(paths["json"], asdict(comparison))
    with named_output(paths["png"]), atomic_write(paths["png"]) as file:
        file.write(picture)
    write_page(
        paths["html"],
        "comparison.html",
        {},
        title=f"Comparison with {comparison.baseline.name}",
        tables=reading_tables(comparison),
        legend=legend(comparison),
        picture=Markup("data:image/png;base64," + base64.b64encode(picture).decode()),
    )
    return list(paths.values())


def draw(comparison: Comparison) -> bytes:
    """Draw each protocol's mAP as a PNG: a dot for every seed, their mean, and the interval over persons.

    The interval is that of the difference to the first method, drawn around the method's mean.
    """
    rows, protocols = comparison.rows, comparison.protocols
    figure = Figure(figsize=(1.8 + 2.6 * len(protocols), 1.2 + 0.34 * len(rows)), layout="constrained")
    for axes, protocol in zip(
        figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0], protocols, strict=True
    ):
        axes.axvline(comparison.baseline.scores[protocol].mean("mAP"), color="#7d8894", linewidth=0.8)
        for place, row in enumerate(rows):
            scores = row.scores[protocol]
            mean, change = scores.mean("mAP"), scores.difference
            if change is not None:
                ends = mean + change.low - change.mean, mean + change.high - change.mean
                axes.plot(ends, (place, place), color="#1756c4", linewidth=2, alpha=0.45)
            axes.plot(scores.values["mAP"], [place] * row.seeds, ".", color="#a2500a", markersize=4)
            axes.plot(mean, place, "D", color="#1756c4", markersize=5)
        axes.set(title=protocol, xlabel="mAP, %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#d9dee4", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.axes[0].set_yticks(range(len(rows)), [row.name for row in rows])
    figure.axes[0].invert_yaxis()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()
