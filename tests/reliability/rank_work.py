"""What each process of the tests of many processes does; spawned processes import it by name."""

import hashlib
import json
from itertools import islice
from pathlib import Path

import torch

from fastreid.config import get_cfg
from fastreid.data import build_train_loader
from fastreid.engine import DefaultTrainer, default_setup
from fastreid.utils import comm


def train_and_tell(config_file: str, pairs: list[str], folder: str) -> None:
    """Evaluate the initial model, train it, and write what this rank saw to ``folder/rankN.json``."""
    torch.set_num_threads(1)
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(pairs)
    cfg.freeze()
    default_setup(cfg)
    trainer = DefaultTrainer(cfg)
    results = DefaultTrainer.test(cfg, trainer.model)
    batches = [batch["targets"].tolist() for batch in islice(build_train_loader(cfg, trainer.train_set), 3)]
    trainer.resume_or_load()
    trainer.train()
    hashes = {
        name: hashlib.sha256(value.numpy().tobytes()).hexdigest()
        for name, value in trainer.model.state_dict().items()
    }
    told = {"results": results, "batches": batches, "hashes": hashes}
    (Path(folder) / f"rank{comm.get_rank()}.json").write_text(json.dumps(told))
