"""Generated features, told by the real pictures of their view that are nearest: against a plain search."""

import numpy as np
import pytest
import torch
from toy_runs import VIEWS, make_protocol, make_samples

from fastreid.structures import Sample
from fastreid.visualization.generated import LEVELS, SHOWN, ViewFeatures, rate_table, summarise_views


@pytest.fixture
def world():
    """20 queries and 60 gallery pictures of 8 persons, of which one has no aerial picture in the gallery."""
    samples = make_samples([f"{number}.jpg" for number in range(80)], 8)
    lost = {sample.path for sample in samples[20:] if (sample.pid, sample.viewid) == (3, 0)}
    samples = [sample for sample in samples if sample.path not in lost]
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 6, generator=draw)[[sample.pid for sample in samples]]
    noisy = [centres + scale * torch.randn(len(samples), 6, generator=draw) for scale in (0.6, 0.3, 0.9)]
    return make_protocol(samples, 20), ViewFeatures(noisy[0], dict(zip(VIEWS, noisy[1:], strict=True)))


def plain_search(asked: torch.Tensor, query: Sample, gallery: list[Sample], real: torch.Tensor, view: int):
    """Gallery indices of the view by falling cosine, without the query's own person and camera."""
    kept = [
        index
        for index, sample in enumerate(gallery)
        if sample.viewid == view and (sample.pid, sample.camid) != (query.pid, query.camid)
    ]
    cosine = torch.nn.functional.cosine_similarity(asked[None].double(), real.double())
    return sorted(kept, key=lambda index: -float(cosine[index]))


def test_the_nearest_and_the_first_hit_are_those_of_a_plain_search(world):
    dataset, features = world
    split = len(dataset.query)
    found = summarise_views(dataset, features, (range(split), range(split, len(features.real))))
    assert [view.name for view in found] == list(VIEWS)
    for number, view in enumerate(found):
        for row, query in enumerate(dataset.query):
            orders = [
                plain_search(asked[row], query, dataset.gallery, features.real[split:], number)
                for asked in (features.generated[view.name], features.real)
            ]
            firsts = [
                min(
                    (rank for rank, i in enumerate(order, 1) if dataset.gallery[i].pid == query.pid),
                    default=0,
                )
                for order in orders
            ]
            assert [view.first_hit[row], view.own_first_hit[row]] == firsts
            assert view.nearest[row].tolist() == orders[0][:SHOWN]
    assert 0 in found[0].first_hit


def test_rates_are_shares_of_the_queries_whose_person_the_view_shows(world):
    dataset, features = world
    split = len(dataset.query)
    views = summarise_views(dataset, features, (range(split), range(split, len(features.real))))
    table = rate_table(dataset, views, "Toy")
    assert table.row_names == [
        f"{side} to {view}, {feature}"
        for view in VIEWS
        for side in (*VIEWS, "any")
        for feature in ("generated", "own")
    ]
    sides = np.array([query.viewid for query in dataset.query])
    for row, values in enumerate(table.values):
        view, side = views[row // 6], row // 2 % 3
        asked = (view.first_hit > 0) & ((sides == side) | (side == 2))
        hits = view.own_first_hit if row % 2 else view.first_hit
        assert values == pytest.approx([100 * np.mean(hits[asked] <= k) for k in LEVELS])
        assert table.notes[row][0] == f"{asked.sum()} queries"
    assert int(table.notes[4][0].split()[0]) < split


def test_a_view_that_the_gallery_has_not_is_left_out_and_few_pictures_are_all(world):
    dataset, features = world
    split = len(dataset.query)
    ground = [index for index, sample in enumerate(dataset.gallery) if sample.viewid == 1][:3]
    dataset.gallery = [dataset.gallery[index] for index in ground]
    (view,) = summarise_views(dataset, features, (range(split), [split + index for index in ground]))
    assert view.name == "ground"
    own = [
        {i for i, s in enumerate(dataset.gallery) if (s.pid, s.camid) == (query.pid, query.camid)}
        for query in dataset.query
    ]
    for row, left_out in zip(view.nearest.tolist(), own, strict=True):
        assert sorted(row) == [-1] * (SHOWN - 3 + len(left_out)) + sorted({0, 1, 2} - left_out)
