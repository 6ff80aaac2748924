"""Protocols of fabricated pictures and features, and what a report gathers of them, without a model."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from fastreid.config import get_cfg
from fastreid.data import Sample
from fastreid.evaluation import ReidEvaluator
from fastreid.structures import SampleNames, Table
from fastreid.visualization.feature_map import map_features
from fastreid.visualization.generated import ViewFeatures, summarise_views
from fastreid.visualization.run_summary import RunSummary, summarise_protocol

VIEWS = ("aerial", "ground")
CAMERAS = ("kite", "gate", "drone", "9")
LENGTH = 5  # of the rank lists
MAP_IMAGES = 60


def make_pictures(folder: Path, count: int, different: int, size: tuple[int, int] = (24, 48)) -> list[str]:
    """Paths of `count` files; after the first `different` ones, further names of the same files."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    paths = [str(folder / f"{number}.png") for number in range(count)]
    for path in paths[:different]:
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    for number in range(different, count):
        os.link(paths[number % different], paths[number])
    return paths


def make_samples(paths: list[str], num_persons: int) -> list[Sample]:
    """Persons, four cameras and two views take turns."""
    turns = [(number % num_persons, number // num_persons) for number in range(len(paths))]
    return [
        Sample(path, person, turn % 4, turn % 2) for path, (person, turn) in zip(paths, turns, strict=True)
    ]


def make_protocol(samples: list[Sample], num_queries: int, name: str = "TOY") -> SimpleNamespace:
    """A dataset: the first samples ask, the others are its gallery."""
    return make_dataset(name, samples[:num_queries], samples[num_queries:])


def make_dataset(name: str, query: list[Sample], gallery: list[Sample]) -> SimpleNamespace:
    def names_of(sample: Sample) -> SampleNames:
        return SampleNames(f"{sample.pid:03}", CAMERAS[sample.camid], VIEWS[sample.viewid])

    return SimpleNamespace(
        name=name,
        query=query,
        gallery=gallery,
        view_names=VIEWS,
        camera_names=dict(enumerate(CAMERAS)),
        names_of=names_of,
    )


def make_run(
    datasets: list,
    name: str,
    noise: float,
    seed: int,
    width: int = 16,
    distractors: int = 0,
    generates: bool = False,
) -> RunSummary:
    """A model whose features are a person's centre and noise; more noise, worse lists.

    Args:
        generates: it generates as good a feature of each view.
    """
    rng = torch.Generator().manual_seed(seed)
    cfg = get_cfg()
    cfg.TEST.EQUAL_TERMS.DISTRACTORS = distractors
    evaluator = ReidEvaluator(cfg)
    persons = 1 + max(sample.pid for dataset in datasets for sample in dataset.gallery)
    centres = torch.randn(persons, width, generator=rng)

    def features(samples: list[Sample]) -> torch.Tensor:
        scatter = torch.randn(len(samples), width, generator=rng)
        return centres[[sample.pid for sample in samples]] + noise * scatter

    first = datasets[0]
    protocols = {
        d.name: summarise_protocol(evaluator, d, features(d.query), features(d.gallery), LENGTH)
        for d in datasets
    }
    for d in datasets if generates else ():
        samples = [*d.query, *d.gallery]
        views = ViewFeatures(features(samples), {view: features(samples) for view in VIEWS})
        queries, gallery = range(len(d.query)), range(len(d.query), len(samples))
        found = summarise_views(d, views, (queries, gallery))
        protocols[d.name] = protocols[d.name]._replace(generated=found)
    shown = map_features(features(first.gallery), first.gallery, "pca", MAP_IMAGES, "cosine", seed)
    tables = [make_table([[1, 0.5 + noise / 10], [0.5 + noise / 10, 1]])]
    settings = {"MODEL.SEED": str(seed), "TEST.METRIC": "cosine"}
    return RunSummary(name, "Toy", f"{name}.pth", "cosine", protocols, tables, shown, distractors, settings)


def make_table(values: list[list[float]], name: str = "prototypes") -> Table:
    """A table of the views, as a method gives it."""
    views = list(VIEWS)
    return Table(name, "View prototypes", "view", "view", views, views, values, [["", ""]] * 2, (0, 1), 3)
