"""Data loaders: batches of uint8 images with their labels."""

import gc
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from fastreid.config import CfgNode
from fastreid.data.bad_images import check_image_files
from fastreid.data.datasets import ReIDDataset, open_dataset
from fastreid.data.image_set import ImageSet, ReportingSet, image_set_options
from fastreid.data.train_set import TrainSet
from fastreid.structures import Batch, RetrievalTask, Sample
from fastreid.utils import comm
from fastreid.utils.errors import UserError, WorkerError
from fastreid.utils.logger import warn_once
from fastreid.utils.memory import pinning_shortage_named
from fastreid.utils.signals import end_with_parent, stop_signals_held_back

DEAD_WORKER = "a data loading worker died (killed, or out of memory?): lower DATALOADER.NUM_WORKERS"


class ReIDLoader(DataLoader):
    """A DataLoader of batches that leaves torch's global generator alone.

    Images are in channels-last memory. A `UserError` in a worker is raised here as it is; a worker that
    dies is a WorkerError, out of whatever runs at that moment.

    Args:
        options: of torch's DataLoader; `loader_options` gives those that the configuration decides.
    """

    def __init__(self, dataset: ReportingSet, **options: Any) -> None:
        if options.get("num_workers"):  # a spawned process would spawn them, which import everything again
            options["multiprocessing_context"] = "fork"
        super().__init__(
            dataset, worker_init_fn=_init_worker, collate_fn=_collate, generator=torch.Generator(), **options
        )

    def __iter__(self) -> Iterator[Batch]:
        try:
            with pinning_shortage_named():  # nothing else here is CUDA's
                with stop_signals_held_back():  # from the workers for good
                    batches = super().__iter__()
                _name_dead_workers()
                for batch in batches:
                    if isinstance(batch, UserError):
                        raise batch
                    self._count_bad(batch.pop("bad_images"))
                    yield batch
        except (ConnectionError, EOFError) as error:  # its socket broke before torch saw it die
            raise WorkerError(DEAD_WORKER) from error
        except RuntimeError as error:
            if str(error).startswith("DataLoader worker"):
                raise WorkerError(DEAD_WORKER) from error
            raise

    def _count_bad(self, paths: list[str]) -> None:
        self.dataset.replaced.update(paths)


class TrainLoader(ReIDLoader):
    """Endless; its length is the number of iterations of an epoch."""

    def __init__(self, train_set: TrainSet, sampler: Sampler, iters_per_epoch: int, **options: Any) -> None:
        keeps_workers = options["num_workers"] > 0
        super().__init__(train_set, batch_sampler=sampler, persistent_workers=keeps_workers, **options)
        self._iters_per_epoch = iters_per_epoch

    def __len__(self) -> int:
        return self._iters_per_epoch

    def _count_bad(self, paths: list[str]) -> None:
        super()._count_bad(paths)
        if paths:
            warn_once(__name__, "images that cannot be read are replaced; they are listed at the end")


def loader_options(cfg: CfgNode) -> dict[str, Any]:
    """Return the options of a :class:`ReIDLoader` that the configuration decides."""
    uses_cuda = cfg.MODEL.DEVICE != "cpu" and torch.cuda.is_available()
    return {"num_workers": cfg.DATALOADER.NUM_WORKERS, "pin_memory": uses_cuda}


def iterations_per_epoch(cfg: CfgNode, num_images: int) -> int:
    """Return ``SOLVER.ITERS_PER_EPOCH``, or for 0 the whole batches that `num_images` make, at least 1."""
    return max(1, cfg.SOLVER.ITERS_PER_EPOCH or num_images // cfg.SOLVER.IMS_PER_BATCH)


def build_test_datasets(cfg: CfgNode) -> list[ReIDDataset]:
    """Open the protocols of ``DATASETS.TESTS`` and read their query and gallery.

    Raises:
        UserError: for an unknown name, for missing or empty data, for missing or empty files (also with
            ``DATALOADER.ON_BAD_IMAGE skip``: without some of its images it would be another protocol), and
            for a protocol in which no query has a match.
    """
    if not cfg.DATASETS.TESTS:
        raise UserError("DATASETS.TESTS is empty", "name a protocol to evaluate, such as CARGO_AG")
    settings = cfg.DATASETS
    datasets = [open_dataset(name, settings.ROOT, settings.CSV) for name in settings.TESTS]
    scans = {}
    for dataset in datasets:
        dataset.scans = scans
        check_matches(dataset)
    paths = list({sample.path for dataset in datasets for sample in (*dataset.query, *dataset.gallery)})
    check_image_files(paths, f"DATASETS.TESTS {list(cfg.DATASETS.TESTS)}", may_skip=False)
    return datasets


def fit_batch_size(cfg: CfgNode, train_set: TrainSet, world_size: int) -> CfgNode:
    """Return a frozen copy of `cfg` whose batches `train_set` has identities for; warn of smaller ones."""
    cfg = cfg.clone()
    wanted, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    sampler = cfg.entry("DATALOADER.SAMPLER_TRAIN")
    fitted = sampler.fitted_batch_size(train_set.samples, wanted, instances, world_size)
    if fitted < wanted:
        warn_once(
            __name__,
            f"SOLVER.IMS_PER_BATCH {wanted} is of {wanted // instances} identities, and the training set has"
            f" {len(train_set.names.identities)}: batches are of {fitted} images",
        )
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH = fitted
    cfg.freeze()
    return cfg


def build_train_loader(cfg: CfgNode, train_set: TrainSet, start_iter: int = 0) -> TrainLoader:
    """Make endless batches of this rank's ``SOLVER.IMS_PER_BATCH`` / world size images, from `start_iter` on.

    Batch k of a run depends on the configuration alone: not on `start_iter`, the number of workers or, all
    ranks together, of ranks. ``len()`` is the number of iterations of an epoch.

    Raises:
        UserError: if the batch size does not fit the ranks, ``DATALOADER.NUM_INSTANCE`` or the identities.
    """
    sampler = cfg.entry("DATALOADER.SAMPLER_TRAIN")(
        train_set.samples,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_instance=cfg.DATALOADER.NUM_INSTANCE,
        seed=cfg.MODEL.SEED,
        start_iter=start_iter,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    iters_per_epoch = iterations_per_epoch(cfg, len(train_set))
    return TrainLoader(train_set, sampler, iters_per_epoch, **loader_options(cfg))


def build_test_loader(cfg: CfgNode, samples: list[Sample], may_skip: bool = False) -> ReIDLoader:
    """Make batches of ``TEST.IMS_PER_BATCH`` of `samples`, in their order, without augmentation.

    An image that cannot be read is a UserError; with `may_skip`, which is for training images, another one
    stands in for it where ``DATALOADER.ON_BAD_IMAGE`` is skip.
    """
    images = ImageSet(**image_set_options(cfg, samples, is_train=False, may_skip=may_skip))
    return ReIDLoader(images, batch_size=cfg.TEST.IMS_PER_BATCH, **loader_options(cfg))


def queries_with_match(dataset: RetrievalTask) -> int:
    """Count the queries that have an image of their identity, of another match id, in the gallery."""
    places: dict[int, set[int]] = defaultdict(set)
    for sample in dataset.gallery:
        places[sample.pid].add(sample.match_id)
    return sum(bool(places.get(sample.pid, set()) - {sample.match_id}) for sample in dataset.query)


def check_matches(dataset: ReIDDataset) -> None:
    """Check that the protocol has a query with a match.

    Raises:
        UserError: if it has none, with what it has.
    """
    if queries_with_match(dataset):
        return
    sizes = [
        f"{len(part)} {kind} images ({_views(dataset, part)})"
        for kind, part in (("query", dataset.query), ("gallery", dataset.gallery))
    ]
    what = "view" if dataset.protocol.camera_is_view else "camera"
    raise UserError(
        f"{dataset.name}: no query has an image of its identity in another {what} of the gallery, among"
        f" {' and '.join(sizes)} in {dataset.folder}",
        f"complete the folder, or leave {dataset.name} out of DATASETS.TESTS",
    )


def _views(dataset: ReIDDataset, samples: list[Sample]) -> str:
    counts = Counter(sample.viewid for sample in samples)
    return ", ".join(f"{name} {counts[view]}" for view, name in enumerate(dataset.view_names))


def _collate(items: list[dict[str, Any] | UserError]) -> dict[str, Any] | UserError:
    """Join items to a batch. Images stay in channels-last memory: turning each costs more than stacking."""
    if isinstance(items[0], UserError):
        return items[0]
    bad_images = [path for item in items for path in item.pop("bad_images", ())]
    channels_last = [{**item, "images": item["images"].permute(1, 2, 0)} for item in items]
    batch = default_collate(channels_last)
    return {**batch, "images": batch["images"].permute(0, 3, 1, 2), "bad_images": bad_images}


def _name_dead_workers() -> None:
    """Let the error that torch raises in its handler of SIGCHLD say what to do."""
    if threading.current_thread() is not threading.main_thread():
        return  # where torch sets none
    torchs = signal.getsignal(signal.SIGCHLD)
    if not getattr(torchs, "__module__", "").startswith("torch."):
        return  # there are no workers, or it has been done

    def answer(number: int, frame: FrameType | None) -> None:
        try:
            torchs(number, frame)
        except RuntimeError as error:
            raise WorkerError(DEAD_WORKER) from error

    signal.signal(signal.SIGCHLD, answer)


def _init_worker(worker_id: int) -> None:
    """Leave signals, which are held back, to the main process, end with it, and take one thread."""
    gc.freeze()  # a collection writes to all objects, so that those of the main process would be copied
    threading.Thread(target=_end_when_told_to, daemon=True).start()
    end_with_parent(signal.SIGKILL)  # torch asks who its parent is only now, when it may be gone
    torch.set_num_threads(1)


def _end_when_told_to() -> None:
    """Wait for SIGTERM from the main process. That of a scheduler, which signals all, is not for a worker."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
