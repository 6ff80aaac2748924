"""Features that a method generates for a view, told by the real pictures of that view nearest to them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.data import ReIDDataset
from fastreid.evaluation.distance import distance_rows
from fastreid.evaluation.evaluator import Encoded, sample_labels
from fastreid.evaluation.extraction import extract_over_ranks
from fastreid.evaluation.features import rank_features
from fastreid.evaluation.rank import Labels
from fastreid.modeling import MetaArch
from fastreid.structures import Batch, Table
from fastreid.utils.errors import UserError

SHOWN = 5  # nearest pictures of a query and a view
LEVELS = (1, 5, 10)  # of the rates
EVERY = "any"  # the name of all query views together


class GeneratedView(NamedTuple):
    """The ranks of real pictures of one view by Q queries' features that were generated for it.

    Pictures of a query's person that the protocol leaves out are left out here, too.
    """

    name: str
    nearest: np.ndarray  # (Q, SHOWN) int64, gallery indices, nearest first; -1 behind the last
    first_hit: np.ndarray  # (Q,) int64, rank of the person's first picture; 0: the view has none
    own_first_hit: np.ndarray  # (Q,) int64, the same with the query's own real feature in its place


class ViewFeatures(NamedTuple):
    """Of the N samples of an encoding: real features, and those generated for each view."""

    real: Tensor  # (N, W) float32
    generated: dict[str, Tensor]  # (N, W) float32, by the names and in the order of the views


class _RealFeatures(nn.Module):
    """Maps a batch to the real features of a model, (B, W)."""

    def __init__(self, model: MetaArch) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.real_features(self.model.encode(batch), batch)


def split_views(cfg: CfgNode, model: MetaArch, encoded: Encoded) -> ViewFeatures | None:
    """Take the generated features out of the retrieval features, and compute the real ones.

    Returns:
        None for a method that generates none.

    Raises:
        UserError: for a method whose generated and real features differ in width.
    """
    widths, names = model.feature_parts(), model.view_parts()
    if not names:
        return None
    columns = dict(zip(widths, encoded.features.split(list(widths.values()), dim=1), strict=True))
    real = extract_over_ranks(cfg, _RealFeatures(model), encoded.samples)
    for name in names:
        if widths[name] != real.shape[1]:
            raise UserError(
                f"{type(model).__name__} generates {widths[name]} numbers for {name}, but its real_features"
                f" have {real.shape[1]}",
                "make them agree",
            )
    return ViewFeatures(real, {name: columns[name] for name in names})


def summarise_views(
    dataset: ReIDDataset, views: ViewFeatures, rows: tuple[Sequence[int], Sequence[int]]
) -> list[GeneratedView]:
    """Look up what is nearest to each generated feature, in cosine distance, view by view of the gallery.

    Args:
        rows: of the queries and of the gallery in `views`.
    """
    found = []
    for number, (name, generated) in enumerate(views.generated.items()):
        members = np.flatnonzero([sample.viewid == number for sample in dataset.gallery])
        if not len(members):
            continue
        labels = sample_labels(dataset.query, [dataset.gallery[index] for index in members])
        queries, gallery = rows[0], views.real[[rows[1][index] for index in members]]
        own = rank_features(views.real[queries], gallery, labels)
        scores = rank_features(generated[queries], gallery, labels)
        nearest = _nearest(generated[queries], gallery, labels)
        places = np.where(nearest >= 0, members[nearest], -1)
        found.append(GeneratedView(name, places, scores.first_hit, own.first_hit))
    return found


def _nearest(queries: Tensor, gallery: Tensor, labels: Labels) -> np.ndarray:
    """(Q, SHOWN) int64 indices of the nearest that the labels do not leave out; -1 behind the last."""
    nearest = np.full((len(queries), SHOWN), -1)
    for rows, distances in distance_rows(queries, gallery, "cosine"):
        for query, row in enumerate(distances, start=rows.start):
            row[labels.hits_and_junk(query)[1]] = np.inf
        count = min(SHOWN, distances.shape[1])
        values, indices = torch.from_numpy(distances).topk(count, largest=False)
        nearest[rows, :count] = torch.where(values.isinf(), -1, indices)
    return nearest


def rate_table(dataset: ReIDDataset, views: Sequence[GeneratedView], run: str) -> Table:
    """Give the percentage of queries whose person is among the nearest, by the views of query and gallery.

    Each pair of views has a row for the generated feature and one for the query's own in its place.
    """
    rows = list(_rates(dataset, views))
    return Table(
        name=f"generated_{dataset.name}_{run}",
        title=f"Person among the nearest k, {dataset.name}, {run}",
        row_label="feature",
        column_label="k",
        row_names=[name for name, _, _ in rows],
        column_names=[str(level) for level in LEVELS],
        values=[values for _, values, _ in rows],
        notes=[[f"{count:,} queries"] * len(LEVELS) for _, _, count in rows],
        limits=(0, 100),
    )


def _rates(
    dataset: ReIDDataset, views: Sequence[GeneratedView]
) -> Iterator[tuple[str, list[float | None], int]]:
    """Give each row's name, its rates in percent, and the number of queries."""
    query_views = np.array([sample.viewid for sample in dataset.query])
    sides = {dataset.view_names[view]: query_views == view for view in np.unique(query_views).tolist()}
    if len(sides) > 1:
        sides |= {EVERY: np.ones(len(query_views), bool)}
    for view in views:
        for side, members in sides.items():
            asked = members & (view.first_hit > 0)
            for feature, hits in (("generated", view.first_hit), ("own", view.own_first_hit)):
                rates = [100 * float((hits[asked] <= k).mean()) if asked.any() else None for k in LEVELS]
                yield f"{side} to {view.name}, {feature}", rates, int(asked.sum())
