"""Findings that a user should know before a training, and that methods share, see `MetaArch.checks`."""

from collections import defaultdict
from collections.abc import Iterator

from fastreid.config import CfgNode
from fastreid.data import TrainSet
from fastreid.data.samplers import SAMPLER_REGISTRY
from fastreid.modeling.losses import LOSS_REGISTRY
from fastreid.structures import Finding


def metric_losses(cfg: CfgNode, train_set: TrainSet) -> Iterator[Finding]:
    """Metric losses compare images of one identity with each other and with those of other identities."""
    pairwise = [name for name in cfg.MODEL.LOSSES.NAME if LOSS_REGISTRY.get(name).compares_pairs]
    if not pairwise:
        return
    name, instances = pairwise[0], cfg.DATALOADER.NUM_INSTANCE
    if not SAMPLER_REGISTRY.get(cfg.DATALOADER.SAMPLER_TRAIN).whole_identities:
        found = f"{cfg.DATALOADER.SAMPLER_TRAIN} draws images one by one: {name} meets hardly any pair"
        yield Finding("warning", "batches", found, "DATALOADER.SAMPLER_TRAIN NaiveIdentitySampler")
    elif instances < 2:
        found = f"one image of each identity in a batch: {name} has no positive pair"
        yield Finding("warning", "batches", found, "DATALOADER.NUM_INSTANCE 2 or more")
    elif cfg.SOLVER.IMS_PER_BATCH // instances < 2:
        found = f"one identity in a batch: {name} has no negative pair"
        yield Finding("warning", "batches", found, f"SOLVER.IMS_PER_BATCH {2 * instances} or more")


def batch_norm(cfg: CfgNode, world_size: int) -> Iterator[Finding]:
    """Batch norm that trains needs two images in each process."""
    images = cfg.SOLVER.IMS_PER_BATCH // world_size
    if images < 2:
        found = f"{images} image for each process: batch norm needs two"
        yield Finding("error", "batches", found, "raise SOLVER.IMS_PER_BATCH")


def fresh_start(cfg: CfgNode) -> Iterator[Finding]:
    """From random weights features differ little at first, and the soft margin's loss may stay at log 2."""
    settings, losses = cfg.MODEL.BACKBONE, cfg.MODEL.LOSSES
    soft_margin = "TripletLoss" in losses.NAME and losses.TRI.MARGIN == 0
    if settings.PRETRAIN or cfg.MODEL.WEIGHTS or not soft_margin:
        return
    if not (settings.CONV_STEM and cfg.SOLVER.OPT == "AdamW"):
        found = "from random weights, with the soft margin: the triplet loss may stay at 0.69"
        found += " (see feature_spread)"
        yield Finding("warning", "start", found, "MODEL.BACKBONE.CONV_STEM True and SOLVER.OPT AdamW help")


def views_of_identities(train_set: TrainSet, needed: str) -> Iterator[Finding]:
    """Say how many identities are seen in all views, and warn where most are seen in one.

    Args:
        needed: what an identity in two views is, for the advice.
    """
    seen: dict[int, set[int]] = defaultdict(set)
    for sample in train_set.samples:
        seen[sample.pid].add(sample.viewid)
    in_all = sum(len(of_one) == train_set.num_views for of_one in seen.values())
    in_one = sum(len(of_one) == 1 for of_one in seen.values())
    text = f"{in_all:,} of {len(seen):,} identities are seen in all {train_set.num_views} views"
    text += f", {in_one:,} in one alone"
    if 2 * in_one <= len(seen) or train_set.num_views < 2:
        yield Finding("ok", "views of an identity", text)
    else:
        fix = f"check that the folders of all views are there: an identity in two views is {needed}"
        yield Finding("warning", "views of an identity", text, fix)
