"""Arithmetic of batches, sampler and schedule: what the numbers of a configuration come to."""

from fastreid.checks.report import complaints
from fastreid.config import CfgNode
from fastreid.data import TrainSet
from fastreid.data.loaders import iterations_per_epoch
from fastreid.data.samplers import IdentitySampler
from fastreid.modeling import method_of
from fastreid.solver import rate_without_warmup
from fastreid.structures import Finding, Sample


def check_batches(cfg: CfgNode, train_set: TrainSet, world_size: int = 1) -> list[Finding]:
    """Say what batches of `train_set`, epochs and schedule come to, shared by `world_size` processes.

    What else a training of the method should know of them, the method says.
    """
    with complaints("batches") as findings:
        findings += _check_sampler(cfg, train_set.samples, world_size)
    with complaints("schedule") as found:
        found += _check_schedule(cfg, iterations_per_epoch(cfg, len(train_set.samples)))
    findings += found
    with complaints("training data") as found:
        found += method_of(cfg).checks(cfg, train_set, world_size)
    return findings + found


def _check_sampler(cfg: CfgNode, samples: list[Sample], world_size: int) -> list[Finding]:
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    sampler = cfg.entry("DATALOADER.SAMPLER_TRAIN")(
        samples, batch, instances, cfg.MODEL.SEED, world_size=world_size
    )
    text = f"{batch} images"
    if isinstance(sampler, IdentitySampler):
        text += f" = {sampler.ids_per_batch} of {len(sampler.sizes):,} identities x {instances}"
    if world_size > 1:
        text += f", {batch // world_size} for each of {world_size} processes"
    findings = [Finding("ok", "batches", text)]
    if len(samples) < batch:
        found = f"{len(samples)} training images do not fill a batch of {batch}: some come twice in it"
        fix = f"lower SOLVER.IMS_PER_BATCH to {max(1, len(samples) // instances) * instances} or less"
        findings.append(Finding("warning", "batches", found, fix))
    return findings


def _check_schedule(cfg: CfgNode, per_epoch: int) -> list[Finding]:
    solver, total = cfg.SOLVER, cfg.SOLVER.MAX_EPOCH * per_epoch
    text = f"{per_epoch:,} iterations an epoch, {total:,} in {solver.MAX_EPOCH} epochs"
    text += f"; warm-up {solver.WARMUP_ITERS:,} iterations, {solver.WARMUP_ITERS / per_epoch:.1f} epochs"
    findings = [Finding("ok", "schedule", text)]

    def warn(found: str, fix: str) -> None:
        findings.append(Finding("warning", "schedule", found, fix))

    if solver.WARMUP_ITERS >= total:
        warn(
            f"the warm-up of {solver.WARMUP_ITERS:,} iterations is as long as the run of {total:,}:"
            " the learning rate never reaches SOLVER.BASE_LR",
            f"SOLVER.WARMUP_ITERS {total // 10}",
        )
    rate = rate_without_warmup(cfg, per_epoch)
    if solver.WARMUP_ITERS < total and rate(total - 1, solver.BASE_LR) >= rate(0, solver.BASE_LR):
        warn(
            f"SOLVER.SCHED {solver.SCHED}: the learning rate never falls",
            f"SOLVER.STEPS, WARMUP_ITERS and DELAY_EPOCHS so that it falls before epoch {solver.MAX_EPOCH}",
        )
    if cfg.MODEL.FREEZE_LAYERS and solver.FREEZE_ITERS >= total:
        found = f"MODEL.FREEZE_LAYERS {list(cfg.MODEL.FREEZE_LAYERS)} never train"
        warn(found, f"SOLVER.FREEZE_ITERS less than the run's {total:,} iterations")
    return findings
