"""The check of a whole configuration, before anything is read or written."""

from fastreid.config.node import CfgNode, flat_keys, method_registry
from fastreid.utils.errors import UserError

SAMPLER = "DATALOADER.SAMPLER_TRAIN"


def check_config(cfg: CfgNode, world_size: int = 1, training: bool = True) -> None:
    """Check every value by its key, then the rules between keys, those of the method included.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    for name, value in flat_keys(cfg).items():
        cfg.declared[name].check(name, value)
    method_registry(cfg).get(cfg.MODEL.META_ARCHITECTURE).check_config(cfg, training)
    if training:
        _check_batch_size(cfg, world_size)


def _check_batch_size(cfg: CfgNode, world_size: int) -> None:
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    sampler = cfg.declared[SAMPLER].allowed.registry(SAMPLER).get(cfg.DATALOADER.SAMPLER_TRAIN)
    step = world_size * (instances if sampler.whole_identities else 1)
    if batch % step:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {batch}, which {world_size} process(es) cannot share in identities of"
            f" DATALOADER.NUM_INSTANCE {instances} images",
            f"use a multiple of {step}",
        )
