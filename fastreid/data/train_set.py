"""The joined training images as a torch dataset."""

from collections import Counter
from itertools import chain
from typing import Any

from torch.utils.data import Dataset

from fastreid.config import CfgNode
from fastreid.data.bad_images import Replacements, check_image_files
from fastreid.data.datasets import ReIDDataset, Sample, open_dataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.data.datasets.held_out import held_out_protocols, hold_out
from fastreid.data.images import read_image
from fastreid.data.samplers import Draw
from fastreid.data.transforms import augmentation_seed, build_transforms, seeded_rng
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once


class ImageSet(Dataset):
    """Samples as they are read and transformed, one dict each (see :meth:`__getitem__`).

    Args:
        samples: the images.
        is_train: augment them.
        may_skip: whether ``DATALOADER.ON_BAD_IMAGE`` skip holds for them. Another image, of the same
            identity if one can be read, then stands in for one that cannot; its item is the other image's,
            labels and path included.

    Attributes:
        replaced: path -> how often another image stood in for it, in the batches consumed so far.
    """

    def __init__(self, cfg: CfgNode, samples: list[Sample], is_train: bool, may_skip: bool = False) -> None:
        self.samples = samples
        self.replaced: Counter[str] = Counter()
        self._may_skip = may_skip
        skip = may_skip and cfg.DATALOADER.ON_BAD_IMAGE == "skip"
        self._replacements = Replacements(samples, cfg.MODEL.SEED) if skip else None
        self._transform = build_transforms(cfg, is_train)
        self._size = tuple(cfg.INPUT.SIZE_TRAIN if is_train else cfg.INPUT.SIZE_TEST)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``images`` uint8 (3, H, W) RGB; ``targets``, ``camids``, ``viewids`` int; ``img_paths`` str.

        Where bad images are skipped also ``bad_images``, the paths that could not be read before this one
        could; the loader takes them out of the batch and counts them in `replaced`.

        Raises:
            UserError: if the file cannot be read; it names the file, and with `may_skip` the setting.
        """
        return self._item(index, number=index)

    def _item(self, index: int, number: int) -> dict[str, Any]:
        if self._replacements is None:
            return self._read_or_stop(index)
        bad: list[str] = []
        for candidate in chain([index], self._replacements.in_turn(index, number)):
            try:
                return self._read(candidate) | {"bad_images": bad}
            except UserError:
                bad.append(self.samples[candidate].path)
        raise UserError(f"none of the {len(bad)} images can be read, first {bad[0]}", "restore the files")

    def _read_or_stop(self, index: int) -> dict[str, Any]:
        try:
            return self._read(index)
        except UserError as error:
            if not self._may_skip:
                raise
            raise UserError(f"{error}, or train without it: DATALOADER.ON_BAD_IMAGE skip") from error

    def _read(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        return {
            "images": self._transform(read_image(sample.path, self._size)),
            "targets": sample.pid,
            "camids": sample.camid,
            "viewids": sample.viewid,
            "img_paths": sample.path,
        }


class TrainSet(ImageSet):
    """Training images with pids 0 … ``num_classes`` - 1; indexed by the sampler's draws.

    Attributes:
        samples: the images of all `datasets`, one after the other.
        datasets: the joined training sets, to be described in the log.
        num_classes: identities.
        num_views: views that the benchmarks have.
        held_out: protocols of the identities that ``DATASETS.HELD_OUT_IDS`` keeps out of training.
    """

    def __init__(self, cfg: CfgNode, datasets: list[ReIDDataset]) -> None:
        held_out = hold_out(datasets, cfg.DATASETS.HELD_OUT_IDS)
        samples = _join(datasets, cfg.DATASETS.COMBINEALL, held_out)
        super().__init__(cfg, samples, is_train=True, may_skip=True)
        self.datasets = datasets
        self.held_out = held_out_protocols(datasets, held_out)
        self.num_classes = len({sample.pid for sample in self.samples})
        self.num_views = len(joint_view_names(datasets))
        self._seed = cfg.MODEL.SEED

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """The drawn image. Its augmentation depends on ``MODEL.SEED`` and the draw's number alone.

        So does, with ``DATALOADER.ON_BAD_IMAGE skip``, the image that replaces it.
        """
        with seeded_rng(augmentation_seed(self._seed, draw.number)):
            return self._item(draw.index, draw.number)


def build_train_dataset(cfg: CfgNode) -> TrainSet:
    """Join the training images of ``DATASETS.NAMES`` (with ``COMBINEALL``, also their query and gallery).

    Identities are relabelled in the order of the names, then of the benchmark's person ids; within a
    benchmark the same person id is the same person in every split.

    Raises:
        UserError: for an unknown name, a benchmark named twice, missing or empty data, a
            ``MODEL.SDMODEL.VIEW_NUM`` that is not the benchmarks' number of views, and, unless
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
    """The joined images of datasets that are open already; raises as `build_train_dataset`.

    It does not look for the files.
    """
    folder, times = Counter(dataset.folder for dataset in datasets).most_common(1)[0]
    if times > 1:
        raise UserError(
            f"DATASETS.NAMES {list(cfg.DATASETS.NAMES)} joins the images of {folder} twice:"
            f" all protocols of a benchmark have the same training images, name one"
        )
    train_set = TrainSet(cfg, datasets)
    _check_views(cfg, train_set)
    return train_set


def _join(datasets: list[ReIDDataset], combine_all: bool, held_out: set[tuple[int, int]]) -> list[Sample]:
    joined: list[tuple[int, Sample]] = []
    for number, dataset in enumerate(datasets):
        samples = list(dataset.train)
        if combine_all:
            samples += [sample for sample in dataset.query + dataset.gallery if sample.pid >= 0]
        joined += [(number, sample) for sample in samples if (number, sample.pid) not in held_out]
    labels = {person: label for label, person in enumerate(sorted({(n, s.pid) for n, s in joined}))}
    return [Sample(s.path, labels[n, s.pid], s.camid, s.viewid) for n, s in joined]


def _check_views(cfg: CfgNode, train_set: TrainSet) -> None:
    names = joint_view_names(train_set.datasets)
    if train_set.num_views != cfg.MODEL.SDMODEL.VIEW_NUM:
        raise UserError(
            f"MODEL.SDMODEL.VIEW_NUM is {cfg.MODEL.SDMODEL.VIEW_NUM}, but DATASETS.NAMES"
            f" {list(cfg.DATASETS.NAMES)} has {train_set.num_views} views ({', '.join(names)})",
            f"set it to {train_set.num_views}",
        )
    counts = Counter(sample.viewid for sample in train_set.samples)
    for view, name in enumerate(names):
        if not counts[view]:
            warn_once(
                __name__,
                f"none of the {len(train_set)} training images of {list(cfg.DATASETS.NAMES)} shows view"
                f" {view} ({name}): nothing is learnt about it",
            )
