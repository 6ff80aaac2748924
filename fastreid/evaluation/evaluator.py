"""Evaluation of a model on the test protocols: one encoding of each image, one table of results."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fastreid.config import CfgNode
from fastreid.evaluation.distance import distance_rows
from fastreid.evaluation.equal_terms import draw, fewest_distractors, match_ranks, summarise_ranks, view_gap
from fastreid.evaluation.extraction import extract_over_ranks
from fastreid.evaluation.features import rank_features
from fastreid.evaluation.query_expansion import expand_queries
from fastreid.evaluation.rank import Labels, QueryScores, check_labels, rank_matrix
from fastreid.evaluation.report import (
    log_table,
    log_view_gap,
    scores_path,
    write_query_scores,
    write_results,
)
from fastreid.evaluation.roc import FALSE_POSITIVE_RATES, RowBlocks, tpr_at_fpr
from fastreid.structures import Metrics, Results, RetrievalTask, Sample
from fastreid.utils import comm
from fastreid.utils.errors import UserError

logger = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """The scores of one protocol."""

    metrics: Metrics  # Rank-1, Rank-5, Rank-10, mAP, mINP, mean, and what TEST.ROC and EQUAL_TERMS add
    scores: QueryScores
    row_blocks: Callable[[], RowBlocks]  # gives the distances that were ranked: (rows, (len(rows), G)) …


class Encoded(NamedTuple):
    """Protocols whose images were encoded together."""

    protocols: list[RetrievalTask]
    samples: list[Sample]
    features: torch.Tensor | None  # (N, D) of the samples; None on other ranks than 0


class ReidEvaluator:
    """Scores features as the ``TEST`` section of `cfg` says.

    The distance matrix is only made for re-ranking and for a metric that needs all images at once;
    otherwise the features are ranked in blocks.

    Args:
        device: where the blocks' products are made; default: where the features are.

    Raises:
        UserError: for an unknown ``TEST.METRIC``.
    """

    def __init__(self, cfg: CfgNode, device: torch.device | None = None) -> None:
        self.test, self.device = cfg.TEST, device
        self.metric = cfg.entry("TEST.METRIC")()
        self.reranks = self.test.RERANK.ENABLED or self.metric.whole

    def evaluate(
        self, q_feats: torch.Tensor, g_feats: torch.Tensor, query: Sequence[Sample], gallery: Sequence[Sample]
    ) -> Evaluation:
        """Score (Q, D) against (G, D) float32 features of the samples `query` and `gallery`.

        Raises:
            ValueError: for features that are not finite, or when no query has a match.
        """
        labels = sample_labels(query, gallery)
        if self.test.AQE.ENABLED:
            aqe = self.test.AQE
            q_feats, g_feats = expand_queries(q_feats, g_feats, aqe.QE_TIME, aqe.QE_K, aqe.ALPHA)
        if self.reranks:
            rerank = self.test.RERANK
            distmat = self.metric.matrix(q_feats, g_feats, rerank.K1, rerank.K2, rerank.LAMBDA)
            scores = rank_matrix(distmat, labels)

            def row_blocks():
                yield slice(0, len(distmat)), distmat

            def score_among(query, items, own_labels):
                return rank_matrix(distmat[query : query + 1, items], own_labels)
        else:
            scores = rank_features(q_feats, g_feats, labels, self.test.METRIC, device=self.device)

            def row_blocks():
                return distance_rows(q_feats, g_feats, self.test.METRIC)

            def score_among(query, items, own_labels):
                return rank_features(q_feats[query : query + 1], g_feats[items], own_labels, self.test.METRIC)

        metrics = summarise_percent(scores, len(gallery))
        if self.test.ROC.ENABLED:
            for rate, tpr in zip(FALSE_POSITIVE_RATES, tpr_at_fpr(row_blocks, labels), strict=True):
                metrics[f"TPR@FPR={_short(rate)}"] = 100 * float(tpr)
        if distractors := self.test.EQUAL_TERMS.DISTRACTORS:
            draws = draw(labels, distractors, self.test.EQUAL_TERMS.SEED)
            metrics |= summarise_ranks(match_ranks(draws, score_among), distractors)
        return Evaluation(metrics, scores, row_blocks)


def summarise_percent(scores: QueryScores, num_gallery: int) -> Metrics:
    """Return Rank-1, Rank-5, Rank-10, mAP, mINP and mean = (Rank-1 + mAP) / 2 in percent."""
    cmc, ap, inp = scores.summarise(10, num_gallery)
    metrics = {f"Rank-{r}": 100 * float(cmc[min(r, len(cmc)) - 1]) for r in (1, 5, 10)}
    metrics["mAP"] = 100 * float(ap.mean())
    metrics["mINP"] = 100 * float(inp.mean())
    metrics["mean"] = (metrics["Rank-1"] + metrics["mAP"]) / 2
    return metrics


def evaluate_protocols(cfg: CfgNode, model: nn.Module, datasets: Sequence[RetrievalTask]) -> Results:
    """Score `model` on every protocol, encoded as :func:`encode_protocols` does.

    Every rank gets the same result. Rank 0 logs the table, then writes it and the scores of every query in
    ``OUTPUT_DIR``: of a model in training mode as ``results.json`` and ``query_scores.npz``, otherwise under
    names of their own with the checkpoint's, ``MODEL.WEIGHTS``, in them.

    Returns:
        By protocol Rank-1, Rank-5, Rank-10, mAP, mINP and mean in percent, and TPR@FPR=1e-4 … with
        ``TEST.ROC.ENABLED``, Rank-1@1:99 and mAP@1:99 with ``TEST.EQUAL_TERMS.DISTRACTORS`` 99.

    Raises:
        UserError: for a protocol without queries, gallery, any match or enough distractors, and for features
            that are not finite.
    """
    evaluator = ReidEvaluator(cfg, next(model.parameters(), torch.empty(0)).device)
    for dataset in datasets:
        if not dataset.query or not dataset.gallery:
            raise UserError(
                f"protocol {dataset.name}: {len(dataset.query)} queries and {len(dataset.gallery)} gallery"
                f" images found; expected some of both under DATASETS.ROOT {cfg.DATASETS.ROOT}"
            )
    checkpoint = None if model.training else cfg.MODEL.WEIGHTS
    encoded = encode_protocols(cfg, model, datasets)
    return comm.on_main_process(lambda: score_protocols(cfg, evaluator, encoded, checkpoint))


def encode_protocols(cfg: CfgNode, model: nn.Module, datasets: Sequence[RetrievalTask]) -> list[Encoded]:
    """Encode the union of the protocols' image files, each by one rank.

    For a model whose features depend on the batch each protocol is encoded by itself, queries before gallery.

    Raises:
        UserError: as `check_distractors`, before anything is encoded.
    """
    check_distractors(cfg, datasets)
    groups = [(list(datasets), distinct_samples(datasets))]
    if model.batch_dependent:
        groups = [([dataset], [*dataset.query, *dataset.gallery]) for dataset in datasets]
    images = sum(len(samples) for _, samples in groups)
    logger.info("Evaluating %d protocols: %d images to encode", len(datasets), images)
    model.on_evaluation_start()
    return [Encoded(own, samples, extract_over_ranks(cfg, model, samples)) for own, samples in groups]


def check_distractors(cfg: CfgNode, datasets: Sequence[RetrievalTask]) -> None:
    """Check that each query has ``TEST.EQUAL_TERMS.DISTRACTORS`` images of other persons to draw from.

    Raises:
        UserError: for a protocol where one has not.
    """
    wanted = cfg.TEST.EQUAL_TERMS.DISTRACTORS
    for dataset in datasets if wanted else ():
        found = fewest_distractors(sample_labels(dataset.query, dataset.gallery))
        if found < wanted:
            raise UserError(
                f"protocol {dataset.name}: a query has {found} gallery images of other persons, fewer than"
                f" TEST.EQUAL_TERMS.DISTRACTORS {wanted}",
                f"set it to {found} or less (0 is off)",
            )


def score_protocols(
    cfg: CfgNode, evaluator: ReidEvaluator, encoded: list[Encoded], checkpoint: str | None
) -> Results:
    """Score encoded protocols on one process, and log and write what `evaluate_protocols` says.

    In memory are the features and, of one protocol at a time, a copy of those of its gallery, unless they
    follow each other.
    """
    results, sizes, queries = {}, {}, {}
    every = (protocol_features(group.features, group.samples, group.protocols) for group in encoded)
    for dataset, *parts in itertools.chain.from_iterable(every):
        try:
            evaluation = evaluator.evaluate(*parts, dataset.query, dataset.gallery)
        except ValueError as error:
            raise UserError(f"protocol {dataset.name} cannot be scored: {error}") from error
        results[dataset.name] = evaluation.metrics
        persons = np.array([sample.pid for sample in dataset.query], np.int64)
        queries[dataset.name] = (persons, evaluation.scores)
        scored = int((evaluation.scores.first_hit > 0).sum())  # a query without a match counts in no mean
        counts = {"queries": len(dataset.query), "scored": scored, "gallery": len(dataset.gallery)}
        sizes[dataset.name] = counts
        del parts, evaluation  # before the next gallery is copied
    log_table(results, sizes)  # before anything is written: a full disk must not cost the metrics
    tasks = [dataset for group in encoded for dataset in group.protocols]
    distractors = cfg.TEST.EQUAL_TERMS.DISTRACTORS
    gap = view_gap(tasks, results, distractors)
    if gap is not None:
        log_view_gap(gap, distractors)
    path = write_results(cfg, results, sizes, checkpoint, gap)
    write_query_scores(scores_path(path), queries)
    logger.info("Results written: %s", path)
    return results


def distinct_samples(datasets: Iterable[RetrievalTask]) -> list[Sample]:
    """Return the images of all protocols, each file once. Their match ids are those of the last protocol."""
    return list({s.path: s for d in datasets for s in (*d.gallery, *d.query)}.values())


def protocol_features(
    features: torch.Tensor, samples: Sequence[Sample], datasets: Iterable[RetrievalTask]
) -> Iterator[tuple[RetrievalTask, torch.Tensor, torch.Tensor]]:
    """Give each protocol with its query and gallery features, out of the features (N, D) of `samples`."""
    row_of = {sample.path: row for row, sample in enumerate(samples)}
    for dataset in datasets:  # what is yielded has no name here: it is gone when its user has done with it
        parts = ([row_of[s.path] for s in part] for part in (dataset.query, dataset.gallery))
        yield dataset, *(_take(features, rows) for rows in parts)


def _take(features: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Take the rows, as a view where they follow each other."""
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return features[rows[0] : rows[0] + len(rows)]
    return features[rows]


def sample_labels(query: Sequence[Sample], gallery: Sequence[Sample]) -> Labels:
    """Return the persons of query and gallery with their match ids as what is left out."""
    columns = [
        np.array([getattr(s, field) for s in part], np.int64)
        for field in ("pid", "match_id")
        for part in (query, gallery)
    ]
    return check_labels(len(query), len(gallery), *columns)


def _short(rate: float) -> str:
    """Write ``1e-4`` rather than Python's ``0.0001``."""
    mantissa, exponent = f"{rate:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"
