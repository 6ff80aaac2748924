"""Advice where training takes more memory than there is."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastreid.config import CfgNode
from fastreid.modeling import method_of
from fastreid.utils import comm
from fastreid.utils.errors import UserError
from fastreid.utils.memory import is_allocation_failure, memory_shortage


def memory_advice(cfg: CfgNode, processes: int) -> str:
    """Name what saves memory in training and is not done yet.

    Args:
        processes: that share a batch.
    """
    ways = [f"lower SOLVER.IMS_PER_BATCH to {size}" for size in _half_a_batch(cfg, processes)]
    ways.append("use more GPUs")
    if not cfg.SOLVER.AMP.ENABLED:
        ways.append("set SOLVER.AMP.ENABLED True")
    return ", or ".join([*ways, *(f"set {setting}" for setting in method_of(cfg).memory_advice(cfg))])


@contextmanager
def training_shortage_named(cfg: CfgNode) -> Iterator[None]:
    """Turn an allocation failure in the block into the error that a step of training does not fit."""
    try:
        yield
    except RuntimeError as error:
        if is_allocation_failure(error):
            raise _training_shortage(cfg) from error
        raise


def _training_shortage(cfg: CfgNode) -> UserError:
    batch, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    step = f"a training step of {batch // processes} images"
    share = f"SOLVER.IMS_PER_BATCH {batch}, {processes} process(es)"
    advice = f"{memory_advice(cfg, processes)} (tools/check_setup.py estimates what a step takes)"
    return memory_shortage(f"{step} ({share})", advice)


def _half_a_batch(cfg: CfgNode, processes: int) -> list[int]:
    """Return the largest batch of at most half the images that can be drawn; nothing where there is none."""
    check = cfg.entry("DATALOADER.SAMPLER_TRAIN").check_batch_size
    for size in range(cfg.SOLVER.IMS_PER_BATCH // 2, 0, -1):
        try:
            check(size, cfg.DATALOADER.NUM_INSTANCE, processes)
            return [size]
        except UserError:
            continue
    return []
