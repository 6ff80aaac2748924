"""The datasets of a configuration: folders, protocol files, file names, counts beside the published ones."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastreid.checks.report import complaints, has_errors
from fastreid.config import CfgNode
from fastreid.data import ReIDDataset, Sample, open_dataset
from fastreid.data.bad_images import check_image_files
from fastreid.data.datasets.base import PublishedSizes
from fastreid.data.datasets.manifest import read_manifest
from fastreid.data.datasets.statistics import SplitCounts, count_samples
from fastreid.data.loaders import check_matches, queries_with_match
from fastreid.evaluation.evaluator import check_distractors
from fastreid.structures import Finding

TEST_SPLITS = ("query", "gallery")
EXAMPLES = 3  # file names shown of many


@dataclass
class CheckedData:
    """The findings of `check_datasets`, and the datasets that could be read, to be looked at further."""

    findings: list[Finding] = field(default_factory=list)
    train: list[ReIDDataset] = field(default_factory=list)
    tests: list[ReIDDataset] = field(default_factory=list)


def check_datasets(cfg: CfgNode, training: bool = True) -> CheckedData:
    """Read every dataset that `cfg` names; no picture is opened.

    File names that cannot be read are counted and left out, so that the rest is counted too.

    Args:
        training: whether DATASETS.NAMES is read, or DATASETS.TESTS alone.
    """
    data = CheckedData()
    odd_names: set[str] = set()  # reported so far: the protocols of a benchmark share folders
    if training:
        data.findings += _named("DATASETS.NAMES", cfg.DATASETS.NAMES, "a training set, such as CARGO")
        for name in cfg.DATASETS.NAMES:
            data.train.extend(_read(cfg, name, ("train",), data.findings, odd_names))
        data.findings += [finding for dataset in data.train for finding in _check_train(cfg, dataset)]
    data.findings += _named("DATASETS.TESTS", cfg.DATASETS.TESTS, "a protocol, such as CARGO_AG")
    for name in cfg.DATASETS.TESTS:
        data.tests.extend(_read(cfg, name, TEST_SPLITS, data.findings, odd_names))
    for dataset in data.tests:
        data.findings.extend(_check_protocol(cfg, dataset))
    data.findings.extend(_check_origin(data))
    return data


def _named(key: str, names: list[str], what: str) -> list[Finding]:
    return [] if names else [Finding("error", key, "is empty", f"name {what}")]


def _read(
    cfg: CfgNode, name: str, splits: Sequence[str], findings: list[Finding], odd_names: set[str]
) -> list[ReIDDataset]:
    """Open the dataset, if it can be read; what was found is added to `findings` and `odd_names`."""
    with complaints(name) as found:
        dataset = open_dataset(name, cfg.DATASETS.ROOT, cfg.DATASETS.CSV)
        dataset.bad_names = []
    if not found:
        for split in splits:
            found.extend(_count_split(dataset, split))
    findings += found
    if has_errors(found):
        return []
    findings += _check_names(dataset, splits, odd_names)
    return [dataset]


def _count_split(dataset: ReIDDataset, split: str) -> list[Finding]:
    label = f"{dataset.name} {split}"
    with complaints(label) as findings:
        counts = count_samples(getattr(dataset, split))
        expected = _published(dataset, split)
        text = _counted(dataset, counts, expected)
        if any(getattr(counts, what) != number for what, number in expected.items()):
            fix = "complete the folder; a part of the benchmark, or data of your own, may differ"
            findings.append(Finding("warning", label, text, fix))
        else:
            findings.append(Finding("ok", label, text))
    return findings


def _published(dataset: ReIDDataset, split: str) -> dict[str, int]:
    """Return what is published of ``images`` and ``ids`` of the split; nothing for rendered people."""
    if read_manifest(Path(dataset.folder)) is not None:
        return {}
    if split == "train":
        sizes = dataset.benchmark.published
        known = {"images": sizes.train, "ids": sizes.train_ids}
    else:
        known = {"images": getattr(dataset.protocol.published, split)}
    return {what: number for what, number in known.items() if number is not None}


def _counted(dataset: ReIDDataset, counts: SplitCounts, published: dict[str, int]) -> str:
    def number(what: str, name: str) -> str:
        beside = f" (published: {published[what]:,})" if what in published else ""
        return f"{getattr(counts, what):,} {name}{beside}"

    views = [f"{name} {counts.views[view]:,}" for view, name in enumerate(dataset.view_names)]
    cameras = [f"{camera}: {images:,}" for camera, images in sorted(counts.cameras.items())]
    total = f"{number('images', 'images')} of {number('ids', 'identities')}"
    return f"{total}; views {', '.join(views)}; cameras {', '.join(cameras)}"


def _check_names(dataset: ReIDDataset, splits: Sequence[str], reported: set[str]) -> list[Finding]:
    """Report file names of `dataset` that cannot be read, unless another dataset has reported them."""
    odd = [path for path in dataset.bad_names if path not in reported]
    if not odd:
        return []
    reported.update(odd)
    read = sum(len(getattr(dataset, split)) for split in splits)
    found = f"{len(odd)} file names cannot be read, beside {read:,} that can: {_some(odd)}"
    fix = f"rename or remove them; expected {dataset.benchmark.names.example}, with a camera that exists"
    return [Finding("error", f"{dataset.name} {' and '.join(splits)} names", found, fix)]


def _check_train(cfg: CfgNode, dataset: ReIDDataset) -> list[Finding]:
    label = f"{dataset.name} train"
    skip = cfg.DATALOADER.ON_BAD_IMAGE == "skip"
    with complaints(label) as findings:
        paths = [sample.path for sample in dataset.train]
        check_image_files(paths, label, may_skip=True, skip=skip)
    return findings


def _check_protocol(cfg: CfgNode, dataset: ReIDDataset) -> list[Finding]:
    findings: list[Finding] = []
    with complaints(f"{dataset.name} files") as found:
        paths = [sample.path for sample in (*dataset.query, *dataset.gallery)]
        check_image_files(paths, dataset.name, may_skip=False)
    findings += found
    with complaints(f"{dataset.name} matches") as found:
        check_matches(dataset)
        check_distractors(cfg, [dataset])
        matched, queries = queries_with_match(dataset), len(dataset.query)
        where = "view" if dataset.protocol.camera_is_view else "camera"
        text = f"{matched:,} of {queries:,} queries have a match in another {where}"
        rest = "" if matched == queries else "; the others do not count"
        found.append(Finding("ok", f"{dataset.name} matches", text + rest))
    return findings + found


def _check_origin(data: CheckedData) -> list[Finding]:
    """Say of each folder that we rendered it, or give its size beside that of the whole benchmark."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for dataset in data.train:
        samples[dataset.folder] += dataset.train
    for dataset in data.tests:
        samples[dataset.folder] += dataset.query + dataset.gallery
    benchmarks = {dataset.folder: dataset.benchmark for dataset in (*data.train, *data.tests)}
    findings: list[Finding] = []
    for folder, benchmark in benchmarks.items():
        with complaints(folder) as found:
            manifest = read_manifest(Path(folder))
            if manifest is not None:
                found.append(_rendered(folder, manifest))
            elif benchmark.published.images:
                found.append(_beside_the_whole(folder, samples[folder], benchmark.published))
        findings += found
    return findings


def _rendered(folder: str, manifest: dict) -> Finding:
    if manifest["complete"]:
        text = "rendered by tools/make_synthetic_benchmark.py: the published sizes do not apply"
        return Finding("ok", folder, text)
    fix = "give the command of tools/make_synthetic_benchmark.py again: it goes on where it was"
    return Finding("error", folder, "rendered people, not complete", fix)


def _beside_the_whole(folder: str, samples: list[Sample], published: PublishedSizes) -> Finding:
    images = len({sample.path for sample in samples})
    ids = len({sample.pid for sample in samples if sample.pid >= 0})
    text = f"{images:,} different images of {ids:,} identities in the splits above"
    return Finding(
        "ok",
        folder,
        f"{text} (published for the whole: {published.images:,} images of {published.ids:,} identities)",
    )


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:EXAMPLES]) + (", …" if len(paths) > EXAMPLES else "")
