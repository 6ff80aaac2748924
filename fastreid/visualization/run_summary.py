"""The content of a report on one trained model, gathered by evaluating it: small for any gallery."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastreid.config import CfgNode
from fastreid.config.files import flat_keys
from fastreid.data import ReIDDataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.engine import load_trained_model
from fastreid.evaluation.evaluator import (
    ReidEvaluator,
    encode_protocols,
    protocol_features,
    sample_labels,
)
from fastreid.evaluation.rank import QueryScores
from fastreid.structures import Table
from fastreid.utils.errors import UserError
from fastreid.visualization.feature_map import FeatureMap, map_features
from fastreid.visualization.generated import GeneratedView, split_views, summarise_views
from fastreid.visualization.rankings import Rankings, collect_rankings

CMC_LENGTH = 50


class ProtocolSummary(NamedTuple):
    """The results of one protocol."""

    metrics: dict[str, float]  # percent, as an evaluation gives them
    scores: QueryScores
    cmc: np.ndarray  # (min(50, G),) share of queries whose first match is at rank r + 1 or before
    rankings: Rankings
    generated: list[GeneratedView] = []  # of a method that generates features of views


class RunSummary(NamedTuple):
    """The results of one trained model."""

    name: str
    method: str
    checkpoint: str
    metric: str
    protocols: dict[str, ProtocolSummary]
    tables: list[Table]  # that the method adds
    feature_map: FeatureMap
    distractors: int = 0  # of the evaluation at equal terms; 0: there is none
    settings: dict[str, str] = {}  # the configuration, by full keys


class Contents(NamedTuple):
    """The amount that a report shows."""

    length: int = 10  # gallery images of a rank list
    map_method: str = "tsne"
    map_images: int = 1000


def with_distinct_names(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Name runs of one method by their checkpoints' folders, or by their paths."""
    paths = [Path(run.checkpoint) for run in runs]
    for names in ([run.name for run in runs], [path.parent.name for path in paths], list(map(str, paths))):
        if len(set(names)) == len(names):
            break
    return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]


def summarise_run(cfg: CfgNode, datasets: list[ReIDDataset], contents: Contents) -> RunSummary:
    """Evaluate MODEL.WEIGHTS on the protocols, encoded as :func:`encode_protocols` does.

    Args:
        cfg: of the model, frozen.
        datasets: the protocols.
        contents: how much to gather.

    Raises:
        UserError: for a checkpoint or image that cannot be used, and features that are not finite.
    """
    model = load_trained_model(cfg)
    for dataset in datasets:
        model.check_views(dataset.view_names, dataset.name)
    encoded = encode_protocols(cfg, model, datasets)
    evaluator = ReidEvaluator(cfg, next(model.parameters()).device)
    protocols = {}
    for group in encoded:
        views = split_views(cfg, model, group)
        row_of = {sample.path: row for row, sample in enumerate(group.samples)}
        for dataset, *parts in protocol_features(group.features, group.samples, group.protocols):
            summary = summarise_protocol(evaluator, dataset, *parts, contents.length)
            if views is not None:
                query, gallery = ([row_of[s.path] for s in part] for part in (dataset.query, dataset.gallery))
                summary = summary._replace(generated=summarise_views(dataset, views, (query, gallery)))
            protocols[dataset.name] = summary
    return RunSummary(
        name=type(model).__name__,
        method=type(model).__name__,
        checkpoint=cfg.MODEL.WEIGHTS,
        metric=cfg.TEST.METRIC,
        protocols=protocols,
        tables=model.report_tables(model.names.views or joint_view_names(datasets)),
        feature_map=map_features(
            encoded[0].features,
            encoded[0].samples,
            contents.map_method,
            contents.map_images,
            cfg.TEST.METRIC,
            cfg.MODEL.SEED,
        ),
        distractors=cfg.TEST.EQUAL_TERMS.DISTRACTORS,
        settings={key: str(value) for key, value in flat_keys(cfg).items()},
    )


def summarise_protocol(
    evaluator: ReidEvaluator, dataset: ReIDDataset, q_feats: torch.Tensor, g_feats: torch.Tensor, length: int
) -> ProtocolSummary:
    """Give scores and rank lists of (Q, D) query against (G, D) gallery features, float32.

    Raises:
        UserError: for features that are not finite, or when no query has a match.
    """
    query, gallery = dataset.query, dataset.gallery
    try:
        evaluation = evaluator.evaluate(q_feats, g_feats, query, gallery)
    except ValueError as error:
        raise UserError(f"protocol {dataset.name} cannot be scored: {error}") from error
    labels = sample_labels(query, gallery)
    codes = np.unique([sample.camid for sample in (*query, *gallery)], return_inverse=True)[1]
    rankings = collect_rankings(
        evaluation.row_blocks(), labels, codes[: len(query)], codes[len(query) :], length
    )
    cmc = evaluation.scores.summarise(CMC_LENGTH, len(gallery))[0]
    return ProtocolSummary(evaluation.metrics, evaluation.scores, cmc, rankings)
