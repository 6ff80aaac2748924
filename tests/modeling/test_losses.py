"""The losses against slow loops written from their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastreid.config import check_config, get_cfg
from fastreid.modeling.heads import HeadOutput
from fastreid.modeling.losses import (
    IdentityLosses,
    circle,
    cosface,
    cross_entropy,
    feature_spread,
    triplet,
)
from fastreid.utils.errors import UserError

batches = st.tuples(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.integers(0, 2**31))
loops = settings(max_examples=40, deadline=None)


def random_batch(targets, seed, width=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(targets), width, generator=generator), torch.tensor(targets)


def pairs_of(anchor, targets):
    positives = [j for j in range(len(targets)) if targets[j] == targets[anchor] and j != anchor]
    negatives = [j for j in range(len(targets)) if targets[j] != targets[anchor]]
    return positives, negatives


def mean(values):
    return sum(values) / len(values) if values else 0.0


def unit(rows):
    rows = rows.double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------- cross-entropy
@loops
@given(
    st.integers(1, 6),
    st.integers(1, 5),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
    st.booleans(),
    st.integers(0, 999),
)
def test_cross_entropy_is_the_loop_over_the_smoothed_distribution(
    size, classes, epsilon, alpha, adaptive, seed
):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, classes, generator=generator)
    targets = torch.randint(classes, (size,), generator=generator)
    losses = []
    for row, target in zip(logits.double().tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(value) for value in row)
        probabilities = [math.exp(value) / total for value in row]
        smoothing = alpha * probabilities[target] if adaptive else epsilon
        wanted = [smoothing / classes + (1 - smoothing) * (j == target) for j in range(classes)]
        losses.append(-sum(w * math.log(p) for w, p in zip(wanted, probabilities, strict=True)))
    loss = cross_entropy(logits, targets, -1 if adaptive else epsilon, alpha)
    assert loss.item() == pytest.approx(mean(losses), abs=1e-4)


def test_fixed_smoothing_is_torchs():
    logits, targets = torch.randn(7, 4), torch.arange(7) % 4
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(cross_entropy(logits, targets, 0.1), expected)


def test_adaptive_smoothing_grows_with_confidence_and_takes_no_gradient():
    target = torch.tensor([0])
    extra = []
    for confidence in (0.0, 2.0, 6.0):
        logits = torch.tensor([[confidence, 0.0, 0.0]])
        smoothed = cross_entropy(logits, target, -1, alpha=0.3)
        extra.append((smoothed - cross_entropy(logits, target)).item())
    assert extra[0] < extra[1] < extra[2]

    logits = torch.tensor([[1.0, -0.5, 0.2]], requires_grad=True)
    cross_entropy(logits, target, -1, alpha=0.3).backward()
    probabilities = logits.detach().softmax(1)
    smoothing = 0.3 * probabilities[0, 0]
    wanted = torch.full((1, 3), smoothing / 3)
    wanted[0, 0] += 1 - smoothing
    torch.testing.assert_close(logits.grad, probabilities - wanted)


# ------------------------------------------------------------------------------------------------- triplet
def triplet_by_loops(features, targets, margin, norm_feat, hard_mining):
    rows = unit(features) if norm_feat else features.double().numpy()
    losses = []
    for anchor in range(len(rows)):
        positives, negatives = pairs_of(anchor, targets.tolist())
        if not positives or not negatives:
            continue

        def distance(other, anchor=anchor):
            if norm_feat:
                return float(np.square(rows[anchor] - rows[other]).sum())
            return float(np.linalg.norm(rows[anchor] - rows[other]))

        near = [distance(j) for j in positives]
        far = [distance(j) for j in negatives]
        if hard_mining:
            gap = max(near) - min(far)
        else:
            gap = sum(d * math.exp(d) for d in near) / sum(math.exp(d) for d in near)
            gap -= sum(d * math.exp(-d) for d in far) / sum(math.exp(-d) for d in far)
        losses.append(max(0.0, gap + margin) if margin else math.log1p(math.exp(gap)))
    return mean(losses)


@loops
@given(batches, st.sampled_from([0.0, 0.3]), st.booleans(), st.booleans())
def test_triplet_is_the_loop_over_anchors(batch, margin, norm_feat, hard_mining):
    features, targets = random_batch(*batch)
    loss = triplet(features, targets, margin, norm_feat, hard_mining)
    expected = triplet_by_loops(features, targets, margin, norm_feat, hard_mining)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_triplet_pulls_the_farthest_positive_and_pushes_the_nearest_negative():
    features = torch.tensor([[0.0, 0], [1, 0], [3, 0], [0, 2], [0, 9]], requires_grad=True)
    # Anchor 0: farthest positive 2 (3), nearest negative 3 (2). The other anchors have a part of their own.
    targets = torch.tensor([0, 0, 0, 1, 2])
    loss = triplet(features, targets, margin=5.0)
    anchors = [3 - 2, 2 - math.sqrt(5), 3 - math.sqrt(13)]
    assert loss.item() == pytest.approx(mean([gap + 5 for gap in anchors]), rel=1e-5)


def test_distances_are_exact_far_from_the_origin():
    features, targets = random_batch([0, 0, 1, 1], seed=4)
    shifted = triplet(0.01 * features + 30.0, targets)
    expected = triplet_by_loops(0.01 * features + 30.0, targets, 0, False, True)
    assert shifted.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("hard_mining", [True, False])
def test_soft_margin_of_collapsed_features_is_log_two(hard_mining):
    features = torch.ones(6, 4, requires_grad=True)
    loss = triplet(features, torch.tensor([0, 0, 1, 1, 2, 2]), hard_mining=hard_mining)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)
    assert torch.isfinite(features.grad).all()


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="margin"):
        triplet(torch.randn(4, 2), torch.tensor([0, 0, 1, 1]), margin=-0.1)


# ------------------------------------------------------------------------------------- circle and cosface
def pairwise_by_loops(features, targets, term):
    """Mean over anchors of log(1 + sum of exp(term(s_p, s_n)) over all pairs)."""
    rows = unit(features)
    losses = []
    for anchor in range(len(rows)):
        positives, negatives = pairs_of(anchor, targets.tolist())
        if not positives or not negatives:
            continue
        total = sum(
            math.exp(term(float(rows[anchor] @ rows[p]), float(rows[anchor] @ rows[n])))
            for p in positives
            for n in negatives
        )
        losses.append(math.log1p(total))
    return mean(losses)


@loops
@given(batches, st.sampled_from([0.0, 0.25, 0.4]), st.sampled_from([1.0, 16.0, 64.0]))
def test_circle_is_the_loop_over_pairs(batch, margin, gamma):
    features, targets = random_batch(*batch)

    def term(s_p, s_n):
        positive = max(0.0, 1 + margin - s_p) * (s_p - (1 - margin))
        negative = max(0.0, s_n + margin) * (s_n - margin)
        return gamma * (negative - positive)

    expected = pairwise_by_loops(features, targets, term)
    assert circle(features, targets, margin, gamma).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@loops
@given(batches, st.sampled_from([0.0, 0.25, 0.4]), st.sampled_from([1.0, 16.0, 64.0]))
def test_cosface_is_the_loop_over_pairs(batch, margin, gamma):
    features, targets = random_batch(*batch)
    expected = pairwise_by_loops(features, targets, lambda s_p, s_n: gamma * (s_n - s_p + margin))
    assert cosface(features, targets, margin, gamma).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


# ---------------------------------------------------------------------------------------- all metric losses
def losses_of(cfg, features, targets, logits=None):
    """The losses that `cfg` names, of features, and of logits where it names one on them."""
    return IdentityLosses.from_config(cfg)(
        HeadOutput(logits, torch.zeros(len(targets), 1), features), targets
    )


def all_metric_losses():
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ["TripletLoss", "CircleLoss", "Cosface"]
    return cfg


@pytest.mark.parametrize("norm_feat", [True, False])
@pytest.mark.parametrize("hard_mining", [True, False])
@pytest.mark.parametrize(
    "targets", [[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [0, 0, 0, 0, 1], [7, 7, 7, 2, 2]]
)
def test_gradients_are_finite_with_coincident_features_and_lonely_anchors(targets, norm_feat, hard_mining):
    cfg = all_metric_losses()
    cfg.MODEL.LOSSES.TRI.NORM_FEAT = norm_feat
    cfg.MODEL.LOSSES.TRI.HARD_MINING = hard_mining
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    features[1] = features[0]
    features[4] = features[0]
    features.requires_grad_()
    losses = losses_of(cfg, features, torch.tensor(targets))
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, features, retain_graph=True)
        assert torch.isfinite(loss), name
        assert torch.isfinite(gradient).all(), name
        if len(set(targets)) in (1, 5):  # nobody has both a positive and a negative
            assert loss.item() == 0, name
            assert gradient.abs().max() == 0, name


def test_each_loss_has_a_gradient_that_finite_differences_confirm():
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    direction = torch.randn(6, 3, generator=torch.Generator().manual_seed(4))
    targets = torch.tensor([0, 0, 0, 1, 1, 2])
    for loss in (
        lambda x: triplet(x, targets),
        lambda x: triplet(x, targets, hard_mining=False),
        lambda x: triplet(x, targets, margin=2.0, norm_feat=True),
        lambda x: cosface(x, targets, 0.25, 4.0),
    ):
        leaf = features.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        slope = (loss(features + 1e-2 * direction) - loss(features - 1e-2 * direction)) / 2e-2
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=2e-2, abs=1e-3)


def test_circle_takes_no_gradient_through_its_weights():
    """One anchor's pairs by hand, the weights as plain numbers."""
    margin, gamma = 0.25, 8.0
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(8), requires_grad=True)
    targets = torch.tensor([0, 0, 1])  # two anchors; the third has no positive
    (gradient,) = torch.autograd.grad(circle(features, targets, margin, gamma), features)

    cosine = torch.nn.functional.cosine_similarity
    s_p, expected = cosine(features[0], features[1], dim=0), 0
    for anchor in (0, 1):
        s_n = cosine(features[anchor], features[2], dim=0)
        positive = max(0.0, 1 + margin - s_p.item()) * (s_p - 1 + margin)
        negative = max(0.0, s_n.item() + margin) * (s_n - margin)
        expected = expected + torch.log1p((gamma * (negative - positive)).exp()) / 2
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, features)[0], rtol=1e-4, atol=1e-5)


def test_low_precision_features_are_computed_in_float32_under_autocast():
    features, targets = random_batch([0, 0, 1, 1, 2, 2], seed=5, width=16)
    features = features.bfloat16()
    cfg = all_metric_losses()
    expected = losses_of(cfg, features.float(), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = losses_of(cfg, features, targets)
        entropy = cross_entropy(features, targets)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name])
    assert entropy.dtype == torch.float32


# ------------------------------------------------------------------------------------------ what cfg asks for
def test_the_configuration_chooses_weighs_and_parametrises():
    cfg = get_cfg()
    features, targets = random_batch([0, 0, 1, 1, 2], seed=6)
    logits = torch.randn(5, 3)
    assert list(losses_of(cfg, features, targets, logits)) == ["loss_triplet", "loss_cls"]
    cfg.MODEL.LOSSES.NAME = ["CrossEntropyLoss"]
    assert list(losses_of(cfg, features, targets, logits)) == ["loss_cls"]

    cfg = all_metric_losses()
    options = cfg.MODEL.LOSSES
    options.TRI.MARGIN, options.TRI.NORM_FEAT, options.TRI.HARD_MINING, options.TRI.SCALE = (
        0.3,
        True,
        False,
        2.0,
    )
    options.CIRCLE.MARGIN, options.CIRCLE.GAMMA, options.CIRCLE.SCALE = 0.4, 32.0, 3.0
    options.COSFACE.MARGIN, options.COSFACE.GAMMA, options.COSFACE.SCALE = 0.1, 16.0, 4.0
    losses = losses_of(cfg, features, targets)
    assert list(losses) == ["loss_triplet", "loss_circle", "loss_cosface"]
    expected = [
        2 * triplet(features, targets, 0.3, norm_feat=True, hard_mining=False),
        3 * circle(features, targets, 0.4, 32.0),
        4 * cosface(features, targets, 0.1, 16.0),
    ]
    for loss, reference in zip(losses.values(), expected, strict=True):
        torch.testing.assert_close(loss, reference)


def test_the_classification_loss_reads_its_keys():
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ["CrossEntropyLoss"]
    logits, targets = torch.randn(6, 4), torch.arange(6) % 4
    loss = losses_of(cfg, logits, targets, logits)["loss_cls"]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, targets))
    options = cfg.MODEL.LOSSES.CE
    options.EPSILON, options.ALPHA, options.SCALE = -1.0, 0.5, 2.0
    loss = losses_of(cfg, logits, targets, logits)["loss_cls"]
    torch.testing.assert_close(loss, 2 * cross_entropy(logits, targets, -1, 0.5))


def test_the_classifier_is_needed_by_the_loss_that_reads_its_logits():
    cfg = all_metric_losses()
    assert not IdentityLosses.from_config(cfg).need_classifier
    cfg.MODEL.LOSSES.NAME.append("CrossEntropyLoss")
    assert IdentityLosses.from_config(cfg).need_classifier


def test_unknown_losses_are_named_with_the_nearest():
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ["CrossEntropyLoss", "TripleLoss"]
    for check in (check_config, IdentityLosses.from_config):
        with pytest.raises(UserError, match="'TripleLoss'.*Did you mean 'TripletLoss'"):
            check(cfg)
    cfg.MODEL.LOSSES.NAME = []
    with pytest.raises(UserError, match="MODEL.LOSSES.NAME is empty.*TripletLoss"):
        IdentityLosses.from_config(cfg)


def test_feature_spread_is_the_mean_standard_deviation():
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]], requires_grad=True)
    spread = feature_spread(features)
    assert spread.item() == pytest.approx((1.0 + 0.0) / 2)
    assert not spread.requires_grad
    assert feature_spread(torch.ones(1, 3)).item() == 0
