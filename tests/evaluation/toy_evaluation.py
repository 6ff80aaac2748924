"""Protocols of small random pictures with a toy model, also for several processes."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn

from fastreid.config import CfgNode, get_cfg
from fastreid.data import Sample
from fastreid.evaluation import evaluate_protocols
from fastreid.utils import comm


class ToyModel(nn.Module):
    """A convolution and a linear layer of fixed random weights; remembers what it encoded."""

    batch_dependent = False

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(70))
        self.layers(torch.zeros(1, 3, 32, 16))
        self.encoded: list[str] = []
        self.evaluations = 0

    def on_evaluation_start(self):
        self.evaluations += 1

    def forward(self, batch):
        self.encoded += batch["img_paths"]
        return self.layers(batch["images"].float() / 255)


def make_cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(folder / "run")
    cfg.INPUT.SIZE_TEST = [32, 16]
    cfg.TEST.IMS_PER_BATCH = 7
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


def make_protocols(folder: Path) -> list[SimpleNamespace]:
    """Two protocols that share most of 40 files: 6 persons, 3 cameras."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (6, 8, 4, 3))
    samples = []
    for number in range(40):
        pid = number % 6
        pixels = (people[pid] * 0.2 + rng.integers(0, 256, (8, 4, 3)) * 0.8).astype(np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        samples.append(Sample(str(path), pid, number // 6 % 3, number % 2))
    return [
        SimpleNamespace(name="FIRST", query=samples[:10], gallery=samples[10:]),
        SimpleNamespace(name="SECOND", query=samples[25:], gallery=samples[5:25]),
    ]


def evaluate_as_rank(rank: int, world_size: int, folder: Path, batch_sizes: list[int]) -> None:
    """One process: evaluates the protocols in `folder`, by batch size; saves what it got and encoded.

    Then it takes part in `wait_for_rank_0`.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    outcomes = []
    for batch_size in batch_sizes:
        cfg, model = make_cfg(folder / f"batches_of_{batch_size}"), ToyModel()
        cfg.TEST.IMS_PER_BATCH = batch_size
        results = evaluate_protocols(cfg, model, torch.load(folder / "protocols.pt", weights_only=False))
        outcomes.append((results, model.encoded))
    torch.save(outcomes, folder / f"rank{rank}.pt")
    (folder / f"waits{rank}.json").write_text(json.dumps(wait_for_rank_0()))


def _fail_unsendably() -> None:
    raise ValueError("unsendable", lambda: 0)


def wait_for_rank_0() -> list:
    """Let rank 0 work alone: for longer than a collective may take, then twice in vain; then rank 0 dies.

    Returns:
        What came of the first three, how many keys of the store the last two of them left, and on the others
        the seconds until the last ended, with its message.
    """
    dist.barrier()
    older = not hasattr(dist, "set_timeout")
    set_timeout = dist.distributed_c10d._set_pg_timeout if older else dist.set_timeout
    set_timeout(timedelta(seconds=1))  # not before: the start of the processes takes longer
    dist.distributed_c10d._get_default_store().set_timeout(timedelta(seconds=2))
    store = dist.distributed_c10d._get_default_store()
    told = [comm.on_main_process(lambda: time.sleep(2.5) or "done")]
    keys = store.num_keys()
    try:
        comm.on_main_process(lambda: 1 / 0)
    except ZeroDivisionError as error:
        told.append(str(error))
    try:
        comm.on_main_process(_fail_unsendably)
    except RuntimeError as error:
        told.append(str(error))
    told.append(store.num_keys() - keys)
    dist.barrier()
    started = time.monotonic()
    try:
        comm.on_main_process(lambda: os._exit(0))
    except dist.DistError as error:
        told += [time.monotonic() - started, str(error)]
    return told
