"""Arithmetic of batches, sampler and schedule: what the numbers of a configuration come to."""

from collections import defaultdict

from fastreid.checks.report import Finding, complaints
from fastreid.config import CfgNode
from fastreid.data import SAMPLER_REGISTRY, Sample, TrainSet
from fastreid.data.loaders import iterations_per_epoch
from fastreid.data.samplers import IdentitySampler


def check_batches(cfg: CfgNode, train_set: TrainSet, world_size: int = 1) -> list[Finding]:
    """What batches of `train_set`, epochs and schedule come to, shared by `world_size` processes."""
    samples = train_set.samples
    return [
        *_check_sampler(cfg, samples, world_size),
        *_check_schedule(cfg, iterations_per_epoch(cfg, len(samples))),
        *_check_views(cfg, samples, train_set.num_views),
        *_check_start(cfg),
    ]


def _check_sampler(cfg: CfgNode, samples: list[Sample], world_size: int) -> list[Finding]:
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    with complaints("batches") as findings:
        sampler = SAMPLER_REGISTRY.get(cfg.DATALOADER.SAMPLER_TRAIN)(
            samples, batch, instances, cfg.MODEL.SEED, world_size=world_size
        )
        grouped = isinstance(sampler, IdentitySampler)
        text = f"{batch} images"
        if grouped:
            text += f" = {sampler.ids_per_batch} of {len(sampler.sizes):,} identities x {instances}"
        if world_size > 1:
            text += f", {batch // world_size} for each of {world_size} processes"
        findings.append(Finding("ok", "batches", text))
        findings += _check_losses(cfg, sampler.ids_per_batch if grouped else None)
        if len(samples) < batch:
            found = f"{len(samples)} training images do not fill a batch of {batch}: some come twice in it"
            fix = f"lower SOLVER.IMS_PER_BATCH to {max(1, len(samples) // instances) * instances} or less"
            findings.append(Finding("warning", "batches", found, fix))
        if batch // world_size < 2 and cfg.MODEL.META_ARCHITECTURE == "SDReIDStage1":
            found = f"{batch // world_size} image for each process: batch norm needs two"
            findings.append(Finding("error", "batches", found, "raise SOLVER.IMS_PER_BATCH"))
    return findings


def _check_losses(cfg: CfgNode, ids_per_batch: int | None) -> list[Finding]:
    """Metric losses compare images of one identity with each other and with those of other identities."""
    metric = [name for name in cfg.MODEL.LOSSES.NAME if name != "CrossEntropyLoss"]
    if cfg.MODEL.META_ARCHITECTURE != "SDReIDStage1" or not metric:
        return []
    name = metric[0]
    if ids_per_batch is None:
        found = f"{cfg.DATALOADER.SAMPLER_TRAIN} draws images one by one: {name} meets hardly any pair"
        return [Finding("warning", "batches", found, "DATALOADER.SAMPLER_TRAIN NaiveIdentitySampler")]
    if cfg.DATALOADER.NUM_INSTANCE < 2:
        found = f"one image of each identity in a batch: {name} has no positive pair"
        return [Finding("warning", "batches", found, "DATALOADER.NUM_INSTANCE 2 or more")]
    if ids_per_batch < 2:
        found = f"one identity in a batch: {name} has no negative pair"
        fix = f"SOLVER.IMS_PER_BATCH {2 * cfg.DATALOADER.NUM_INSTANCE} or more"
        return [Finding("warning", "batches", found, fix)]
    return []


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
    if solver.SCHED == "CosineAnnealingLR":
        if solver.DELAY_EPOCHS >= solver.MAX_EPOCH:
            found = f"SOLVER.DELAY_EPOCHS {solver.DELAY_EPOCHS}: the learning rate never falls"
            warn(found, f"less than SOLVER.MAX_EPOCH {solver.MAX_EPOCH}")
    elif all(step >= solver.MAX_EPOCH for step in solver.STEPS):
        found = f"SOLVER.STEPS {list(solver.STEPS)}: the learning rate never falls"
        warn(found, f"epochs before SOLVER.MAX_EPOCH {solver.MAX_EPOCH}")
    if cfg.MODEL.FREEZE_LAYERS and solver.FREEZE_ITERS >= total:
        found = f"MODEL.FREEZE_LAYERS {list(cfg.MODEL.FREEZE_LAYERS)} never train"
        warn(found, f"SOLVER.FREEZE_ITERS less than the run's {total:,} iterations")
    return findings


def _check_views(cfg: CfgNode, samples: list[Sample], num_views: int) -> list[Finding]:
    views: dict[int, set[int]] = defaultdict(set)
    for sample in samples:
        views[sample.pid].add(sample.viewid)
    in_all = sum(len(seen) == num_views for seen in views.values())
    in_one = sum(len(seen) == 1 for seen in views.values())
    text = f"{in_all:,} of {len(views):,} identities are seen in all {num_views} views"
    text += f", {in_one:,} in one alone"
    if 2 * in_one <= len(views) or num_views < 2:
        return [Finding("ok", "views of an identity", text)]
    needed = "what TARGET cross_view trains on" if _learns_across(cfg) else "what a search across views needs"
    fix = "check that the folders of all views are there: an identity in two views is " + needed
    return [Finding("warning", "views of an identity", text, fix)]


def _check_start(cfg: CfgNode) -> list[Finding]:
    """From random weights features differ little at first, and the soft margin's loss may stay at log 2."""
    settings, losses = cfg.MODEL.BACKBONE, cfg.MODEL.LOSSES
    from_scratch = cfg.MODEL.META_ARCHITECTURE == "SDReIDStage1" and not (
        settings.PRETRAIN or cfg.MODEL.WEIGHTS
    )
    soft_margin = "TripletLoss" in losses.NAME and losses.TRI.MARGIN == 0
    if not (from_scratch and soft_margin) or (settings.CONV_STEM and cfg.SOLVER.OPT == "AdamW"):
        return []
    found = (
        "from random weights, with the soft margin: the triplet loss may stay at 0.69 (see feature_spread)"
    )
    return [Finding("warning", "start", found, "MODEL.BACKBONE.CONV_STEM True and SOLVER.OPT AdamW help")]


def _learns_across(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE == "SDReIDStage2" and cfg.MODEL.SDMODEL.TARGET == "cross_view"
