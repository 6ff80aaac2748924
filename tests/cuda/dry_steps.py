"""Steps and evaluations of methods on the GPU that is not there, and where the host may wait for it."""

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from worlds.options import ANY_METHOD, OWN

from fastreid.config import CfgNode, load_config
from fastreid.engine import HookBase, SimpleTrainer
from fastreid.engine.hooks import LRScheduler, StopOnSignal
from fastreid.evaluation.extraction import extract_features
from fastreid.modeling import MetaArch, build_meta_model, fit_config
from fastreid.solver import build_gradient_clipper, build_lr_scheduler, build_optimizer
from fastreid.structures import Batch, DataNames

NAMES = DataNames(tuple("abcd"), {number: f"Cam{number}" for number in range(4)}, ("aerial", "ground"))
LAYERS = ["MODEL.BACKBONE.NUM_LAYERS", "2"]
UNET = ["TEST.SDMODEL.NUM_INFERENCE_STEPS", "1"]
UNET += ["MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32]", "MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX", "[0]"]
SMALLER = {"SDReIDStage2": UNET, "SDReIDStage2AsReleased": UNET}
SMALLER["ViSA"] = ["MODEL.BACKBONE.EXPERTS", "2", "MODEL.BACKBONE.GRAPH_TOP_K", "2"]
BATCH = 8

# Where the host may wait for the device, and why.
ALLOWED = {
    "events.latest": "a log line's numbers",
    "finite.look": "a training that has diverged must end: every ten steps, and before anything is written",
    "generator.forward": "diffusers brings the noise schedule to the device, once",
    "extraction.extract_features": "a batch's features, which are ranked later",
    "feature_cache.encode_images": "a batch's encoder outputs, which become files",
    "features.__init__": "the gallery, whose near ties the CPU computes again in float64",
    "features.rank_features": "a block of queries, likewise",
    "features.distance_blocks": "a block of distances, which the CPU counts",
    "signals._agreed": "ranks agree on signals every ten steps and after an epoch",
    "sampler.__call__": "UniPC solves small systems on the device",
}


def assert_waits(waits: Counter[str], expected: dict[str, int]) -> None:
    """Check what the host has waited for since the last time."""
    assert waits == expected
    assert expected.keys() <= ALLOWED.keys()
    waits.clear()


def config(method: str, *more: str) -> CfgNode:
    """Return a method's configuration with networks as small as they get."""
    own = [*OWN.get(method, []), *LAYERS, *SMALLER.get(method, [])]
    cfg = load_config("", [*ANY_METHOD, "MODEL.META_ARCHITECTURE", method, *own, *more])
    return fit_config(cfg, len(NAMES.identities), NAMES.views)


def meta_model(method: str, *more: str) -> Callable[[], MetaArch]:
    return lambda: build_meta_model(config(method, "MODEL.DEVICE", "cuda:0", *more), NAMES)


def batch() -> Batch:
    """A batch as loaders make it for CUDA: in pinned memory of the CPU."""
    numbers = torch.arange(BATCH)
    images = torch.zeros(BATCH, 3, 64, 32, dtype=torch.uint8)
    labels = {"targets": numbers // 2, "camids": numbers % 4, "viewids": numbers % 2}
    names = [f"{number}.jpg" for number in range(BATCH)]
    return pinned({"images": images, "img_paths": names, **labels})


def pinned(batch: Batch) -> Batch:
    """Move the tensors to pinned memory."""
    return {name: value.pin_memory() if torch.is_tensor(value) else value for name, value in batch.items()}


class Batches(list):
    """Batches of a loader."""

    @property
    def dataset(self) -> range:
        return range(BATCH * len(self))


def train(
    model: MetaArch,
    steps: int,
    amp: torch.dtype | None = None,
    batches: Iterable[Batch] | None = None,
    hooks: Iterable[HookBase] = (),
) -> None:
    """Take steps as one epoch, with the hooks that act in every one, and more."""
    optimizer = build_optimizer(model.cfg, model)
    clip = build_gradient_clipper(model.cfg)
    make_loader = lambda start: batches or [batch()] * steps  # noqa: E731
    trainer = SimpleTrainer(model, optimizer, make_loader, 1, steps, amp_dtype=amp, clip=clip)
    trainer.register_hooks([LRScheduler(build_lr_scheduler(model.cfg, optimizer, steps)), StopOnSignal()])
    trainer.register_hooks(hooks)
    trainer.train()


def evaluate(model: MetaArch, amp: torch.dtype | None = None, flip: bool = False) -> None:
    model.on_evaluation_start()
    features = extract_features(model, Batches([batch()]), flip, amp)
    assert (features.device.type, features.dtype) == ("cpu", torch.float32)
    assert features.shape == (BATCH, sum(model.feature_parts().values()))
