"""The joined training images."""

from collections import Counter
from typing import Any

from fastreid.config import CfgNode
from fastreid.data.bad_images import check_image_files
from fastreid.data.datasets import ReIDDataset, open_dataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.data.datasets.held_out import HeldOutProtocol, held_out_protocols, hold_out
from fastreid.data.image_set import ImageSet, image_set_options
from fastreid.data.samplers import Draw
from fastreid.data.transforms import augmentation_seed, seeded_rng
from fastreid.structures import DataNames, Sample
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once


class TrainSet(ImageSet):
    """An :class:`ImageSet` with pids 0 … ``num_classes`` - 1; indexed by the sampler's draws.

    Attributes:
        samples: the images of all `datasets`, one after the other.
        datasets: the joined training sets, to be described in the log.
        held_out: protocols of the identities that are kept out of training.
        names: of identities, cameras and views.
        num_classes: identities.
        num_views: views that the benchmarks have.
    """

    def __init__(
        self,
        datasets: list[ReIDDataset],
        held_out: list[HeldOutProtocol],
        names: DataNames,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.datasets, self.held_out, self.names = datasets, held_out, names
        self.num_classes, self.num_views = len(names.identities), len(names.views)
        self._seed = seed

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Return the drawn image. Its augmentation depends on the seed and the draw's number alone.

        So does the image that replaces it, where bad images are replaced.
        """
        with seeded_rng(augmentation_seed(self._seed, draw.number)):
            return self._item(draw.index, draw.number)


def build_train_dataset(cfg: CfgNode) -> TrainSet:
    """Join the training images of ``DATASETS.NAMES`` (with ``COMBINEALL``, also their query and gallery).

    Identities are relabelled in the order of the names, then of the benchmark's person ids; within a
    benchmark the same person id is the same person in every split.

    Raises:
        UserError: for an unknown name, a benchmark named twice, missing or empty data, and, unless
            ``DATALOADER.ON_BAD_IMAGE`` is skip, for missing or empty files.
    """
    names = list(cfg.DATASETS.NAMES)
    if not names:
        raise UserError("DATASETS.NAMES is empty", "name a training set, such as CARGO")
    datasets = [open_dataset(name, cfg.DATASETS.ROOT, cfg.DATASETS.CSV) for name in names]
    train_set = join_train_datasets(cfg, datasets)
    paths = [sample.path for sample in train_set.samples]
    skip = cfg.DATALOADER.ON_BAD_IMAGE == "skip"
    check_image_files(paths, f"DATASETS.NAMES {names}", may_skip=True, skip=skip)
    evaluated = {s.path for protocol in train_set.held_out for s in (*protocol.query, *protocol.gallery)}
    check_image_files(sorted(evaluated), f"DATASETS.NAMES {names}, held out", may_skip=False)
    return train_set


def join_train_datasets(cfg: CfgNode, datasets: list[ReIDDataset]) -> TrainSet:
    """Join datasets that are open; raises as `build_train_dataset`, but does not look for the files."""
    folder, times = Counter(dataset.folder for dataset in datasets).most_common(1)[0]
    if times > 1:
        raise UserError(
            f"DATASETS.NAMES {list(cfg.DATASETS.NAMES)} joins the images of {folder} twice: all protocols of"
            " a benchmark have the same training images",
            "name one",
        )
    held_out = hold_out(datasets, cfg.DATASETS.HELD_OUT_IDS)
    samples, identities = _join(datasets, cfg.DATASETS.COMBINEALL, held_out)
    names = DataNames(identities, joint_camera_names(datasets), joint_view_names(datasets))
    _warn_of_unseen_views(samples, names.views, list(cfg.DATASETS.NAMES))
    protocols = held_out_protocols(datasets, held_out)
    options = image_set_options(cfg, samples, is_train=True, may_skip=True)
    return TrainSet(datasets, protocols, names, cfg.MODEL.SEED, **options)


def _join(
    datasets: list[ReIDDataset], combine_all: bool, held_out: set[tuple[int, int]]
) -> tuple[list[Sample], tuple[str, ...]]:
    """Return all training images with their new labels, and by label what the data calls the person."""
    joined: list[tuple[int, Sample]] = []
    for number, dataset in enumerate(datasets):
        samples = list(dataset.train)
        if combine_all:
            samples += [sample for sample in dataset.query + dataset.gallery if sample.pid >= 0]
        joined += [(number, sample) for sample in samples if (number, sample.pid) not in held_out]
    people = sorted({(n, s.pid) for n, s in joined})
    labels = {person: label for label, person in enumerate(people)}
    prefixes = [f"{dataset.benchmark.name}/" if len(datasets) > 1 else "" for dataset in datasets]
    first = {(n, s.pid): s for n, s in reversed(joined)}
    names = tuple(f"{prefixes[n]}{datasets[n].names_of(first[n, pid]).person}" for n, pid in people)
    return [Sample(s.path, labels[n, s.pid], s.camid, s.viewid) for n, s in joined], names


def joint_camera_names(datasets: list[ReIDDataset]) -> dict[int, str]:
    """Return what file names call each camera id; where joined benchmarks differ, all of their names."""
    names: dict[int, list[str]] = {}
    for dataset in datasets:
        for camid, name in dataset.camera_names.items():
            names.setdefault(camid, []).append(name)
    return {camid: " or ".join(dict.fromkeys(names[camid])) for camid in sorted(names)}


def _warn_of_unseen_views(samples: list[Sample], views: tuple[str, ...], datasets: list[str]) -> None:
    counts = Counter(sample.viewid for sample in samples)
    for view, name in enumerate(views):
        if not counts[view]:
            warn_once(
                __name__,
                f"none of the {len(samples)} training images of {datasets} shows view {view} ({name}):"
                " nothing is learnt about it",
            )
