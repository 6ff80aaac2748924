"""What the processes of the launch tests do; spawned processes import it by name."""

import copy
import json
import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from torch import nn
from toy_training import DIM, IDENTITIES, ToyLoader, ToyTrainer

from fastreid.config import get_cfg
from fastreid.engine import HookBase, SimpleTrainer
from fastreid.engine.hooks import LayerFreeze, PeriodicWriter, StopOnSignal
from fastreid.modeling.losses.triplet import triplet
from fastreid.utils import comm
from fastreid.utils.errors import UserError
from fastreid.utils.events import Writer


class Halves:
    """The part of each toy batch that this rank gets."""

    def __init__(self, start_iter: int) -> None:
        self.batches = iter(ToyLoader(start_iter))

    def __iter__(self):
        for batch in self.batches:
            size = len(batch["targets"]) // comm.get_world_size()
            part = slice(comm.get_rank() * size, (comm.get_rank() + 1) * size)
            yield {name: value[part] for name, value in batch.items()}


class Classifier(nn.Module):
    """BatchNorm stands beside the classifier: its statistics must agree, but do not change the gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(DIM, DIM)
        self.classifier = nn.Linear(DIM, IDENTITIES)
        self.neck = nn.BatchNorm1d(DIM, affine=False)

    def forward(self, batch):
        features = self.hidden(batch["images"])
        self.neck(features.detach())
        return {"loss": nn.functional.cross_entropy(self.classifier(features), batch["targets"])}


class LossWriter(Writer):
    """Appends the last loss and the mean of the last ones to ``losses.json``."""

    def __init__(self, folder: str) -> None:
        self.path, self.lines = Path(folder) / "losses.json", []

    def write(self, storage, updates) -> None:
        self.lines.append([updates["loss"], storage.smoothed("loss")])
        self.path.write_text(json.dumps(self.lines))


def train(folder: str) -> None:
    """Train with the first layer frozen for two of six iterations, and log every second one.

    Every rank writes its model.
    """
    torch.manual_seed(0)
    model = Classifier()
    trainer = SimpleTrainer(model, torch.optim.SGD(model.parameters(), 0.1), Halves, 2, 3)
    log = PeriodicWriter(lambda: [LossWriter(folder)], period=2)
    trainer.register_hooks([LayerFreeze(model, ["hidden"], 2), log])
    trainer.train()
    torch.save(model.state_dict(), Path(folder) / f"rank{comm.get_rank()}.pth")


def mine(folder: str) -> None:
    """Train a projection for one step with hard triplets of the batches that `Halves` gives."""

    class Mining(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(DIM, DIM)

        def forward(self, batch):
            return {"loss": triplet(self.hidden(batch["images"]), batch["targets"])}

    torch.manual_seed(0)
    model = Mining()
    start = copy.deepcopy(model.state_dict())
    SimpleTrainer(model, torch.optim.SGD(model.parameters(), 0.1), Halves, 1, 1).train()
    torch.save({"start": start, "end": model.state_dict()}, Path(folder) / f"rank{comm.get_rank()}.pth")


def fail(how: str) -> None:
    """Rank 1 fails; the other waits for it in vain, and fails in turn with the lost connection.

    Where rank 0 is `busy` it notices nothing.
    """
    if comm.get_rank() == 1:
        if "user error" in how:
            raise UserError("SOME.KEY is wrong: change it")
        os.kill(os.getpid(), signal.SIGKILL)
    if "busy" not in how:
        dist.barrier()
    time.sleep(600)


def train_left_alone_and_killed(config: str, folder: str, rank: int, iteration: int) -> None:
    """Train as the YAML text says; then again, where `rank` is killed before `iteration`, once."""

    class Kill(HookBase):
        def before_step(self) -> None:
            if comm.get_rank() == rank and self.trainer.iteration == iteration:
                os.kill(os.getpid(), signal.SIGKILL)

    for name in ("alone", "killed"):
        cfg = get_cfg()
        cfg.merge_values(yaml.safe_load(config) | {"OUTPUT_DIR": f"{folder}/{name}"}, source="test")
        trainer = type("Trainer", (ToyTrainer,), {"means": [], "evaluated": []})(cfg)
        if name == "killed" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            trainer.register_hooks([Kill()])
        trainer.resume_or_load()
        trainer.train()


def wait_for_signal(folder: str) -> None:
    """Train without end, until the parent is asked to stop."""

    class Endless(SimpleTrainer):
        def save_checkpoint(self, name: str, mark_last: bool = True) -> None:
            (Path(folder) / f"saved{comm.get_rank()}").write_text(str(self.iteration))

        def run_step(self) -> None:
            super().run_step()
            (Path(folder) / f"running{comm.get_rank()}").touch()
            time.sleep(0.05)

    model = Classifier()
    trainer = Endless(model, torch.optim.SGD(model.parameters(), 0.1), Halves, 1, 10**6)
    trainer.register_hooks([StopOnSignal()])
    trainer.train()
