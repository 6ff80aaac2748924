"""The embedding head: BNNeck semantics, and the classification layers against their formulas."""

import logging
import math

import pytest
import torch

from fastreid.config import check_config, get_cfg
from fastreid.modeling.heads import ArcSoftmax, CircleSoftmax, CosSoftmax, Linear, build_head
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once


def build(feat_dim=6, num_classes=5, **options):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    for key, value in options.items():
        cfg.MODEL.HEADS[key] = value
    torch.manual_seed(0)
    check_config(cfg)
    return build_head(cfg, feat_dim, num_classes)


def batch(size=8, feat_dim=6, num_classes=5):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(size, feat_dim, generator=generator) * 3 + 1
    return features, torch.randint(num_classes, (size,), generator=generator)


# ------------------------------------------------------------------------------------------------ the neck
def test_state_dict_has_the_fields_names():
    assert set(build().state_dict()) == {"weight"} | {
        f"bottleneck.0.{name}"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert build().weight.shape == (5, 6)


def test_training_normalises_by_the_batch_and_classifies_without_bias():
    head = build().train()
    torch.nn.init.uniform_(head.bottleneck[0].weight, 0.5, 2.0)
    features, targets = batch()
    output = head(features, targets)
    neck = (features - features.mean(0)) / (features.var(0, correction=0) + 1e-5).sqrt()
    neck = neck * head.bottleneck[0].weight
    torch.testing.assert_close(output.logits, neck @ head.weight.T)
    torch.testing.assert_close(output.scores, output.logits)
    assert not output.scores.requires_grad


def test_evaluation_gives_the_feature_after_the_neck_by_running_statistics():
    head = build().eval()
    neck = head.bottleneck[0]
    neck.running_mean.normal_()
    neck.running_var.uniform_(0.5, 2.0)
    features, _ = batch()
    expected = (features - neck.running_mean) / (neck.running_var + 1e-5).sqrt()
    torch.testing.assert_close(head(features), expected)
    torch.testing.assert_close(head(features[:1]), expected[:1])


def test_the_necks_bias_stays_zero():
    head = build().train()
    assert not head.bottleneck[0].bias.requires_grad
    optimizer = torch.optim.SGD([p for p in head.parameters() if p.requires_grad], lr=1.0, weight_decay=0.1)
    features, targets = batch()
    torch.nn.functional.cross_entropy(head(features, targets).logits, targets).backward()
    optimizer.step()
    assert head.bottleneck[0].bias.abs().max() == 0
    assert not torch.equal(head.bottleneck[0].weight, torch.ones(6))


def test_metric_losses_see_the_feature_that_neck_feat_names():
    features, targets = batch()
    assert torch.equal(build(NECK_FEAT="before").train()(features, targets).features, features)
    after = build(NECK_FEAT="after").train()(features, targets).features
    torch.testing.assert_close(after.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(after.std(0, correction=0), torch.ones(6), rtol=0, atol=1e-4)


def test_without_bnneck_the_neck_is_the_identity():
    head = build(WITH_BNNECK=False)
    features, targets = batch()
    assert set(head.state_dict()) == {"weight"}
    assert torch.equal(head.eval()(features), features)
    torch.testing.assert_close(head.train()(features, targets).logits, features @ head.weight.T)


def test_embedding_dim_reduces_before_the_neck():
    head = build(EMBEDDING_DIM=3)
    features, targets = batch()
    output = head.train()(features, targets)
    assert output.logits.shape == (8, 5)
    torch.testing.assert_close(output.features, features @ head.reduction.weight.T)
    assert head.eval()(features).shape == (8, 3)


def test_everything_is_float32_under_autocast():
    head = build(CLS_LAYER="ArcSoftmax", SCALE=30.0, MARGIN=0.3, EMBEDDING_DIM=4).train()
    features, targets = batch()
    expected = head(features, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features, targets)
    for part, reference in zip(output, expected, strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part, reference)
    assert head.eval()(features.bfloat16()).dtype == torch.float32


def test_training_without_targets_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="needs targets"):
        build().train()(batch()[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"POOL_LAYER": "GlobalAvgPool"}, "MODEL.HEADS.POOL_LAYER is 'GlobalAvgPool'; allowed: Identity"),
        ({"NECK_FEAT": "befor"}, "Did you mean 'before'"),
        ({"NORM": "GN"}, "MODEL.HEADS.NORM is 'GN'"),
        ({"CLS_LAYER": "ArcSoftmx"}, "MODEL.HEADS.CLS_LAYER.*Did you mean 'ArcSoftmax'"),
        ({"NAME": "EmbedingHead"}, "Did you mean 'EmbeddingHead'"),
    ],
)
def test_unknown_choices_are_one_line_errors(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_sync_bn_falls_back_to_bn_with_one_warning_without_cuda(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("fastreid"), "propagate", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    warn_once.cache_clear()
    heads = [build(NORM="syncBN") for _ in range(2)]
    assert all(type(head.bottleneck[0]) is torch.nn.BatchNorm1d for head in heads)
    assert [record.levelname for record in caplog.records if "syncBN" in record.message] == ["WARNING"]


def test_sync_bn_on_cuda_keeps_the_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = get_cfg()
    cfg.MODEL.HEADS.NORM = "syncBN"
    head = build_head(cfg, 6, 5)
    assert type(head.bottleneck[0]) is torch.nn.SyncBatchNorm
    assert set(head.state_dict()) == set(build().state_dict())
    assert not head.bottleneck[0].bias.requires_grad


# -------------------------------------------------------------------------------------- classification layers
SCALE, MARGIN = 16.0, 0.4


def expected_logit(layer, angle, is_target):
    """One logit from the angle between a feature and a class weight, as the papers write it."""
    cosine = math.cos(angle)
    if layer is CosSoftmax:
        return SCALE * (cosine - MARGIN) if is_target else SCALE * cosine
    if layer is ArcSoftmax:
        if not is_target:
            return SCALE * cosine
        if angle < math.pi - MARGIN:
            return SCALE * math.cos(angle + MARGIN)
        return SCALE * (cosine - MARGIN * math.sin(MARGIN))
    if is_target:
        return SCALE * max(0.0, 1 + MARGIN - cosine) * (cosine - (1 - MARGIN))
    return SCALE * max(0.0, cosine + MARGIN) * (cosine - MARGIN)


@pytest.mark.parametrize("layer", [CosSoftmax, ArcSoftmax, CircleSoftmax])
def test_cosine_layers_follow_their_formulas(layer):
    features, targets = batch(size=40, feat_dim=3)
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    # Feature 0 lies opposite to its class, where ArcFace's fallback takes over.
    features[0] = -2 * weight[targets[0]] + 0.01
    module = layer(SCALE, MARGIN)
    similarity = module.similarity(features, weight)
    logits = module(similarity, targets)
    for i in range(len(features)):
        for j in range(len(weight)):
            x, w = features[i].tolist(), weight[j].tolist()
            product = sum(a * b for a, b in zip(x, w, strict=True))
            cosine = product / (math.hypot(*x) * math.hypot(*w))
            assert similarity[i, j].item() == pytest.approx(cosine, abs=1e-5)
            angle = math.acos(max(-1.0, min(1.0, cosine)))
            expected = expected_logit(layer, angle, is_target=targets[i].item() == j)
            assert logits[i, j].item() == pytest.approx(expected, abs=2e-3)


def test_linear_scales_the_products_and_ignores_the_margin():
    features, targets = batch()
    weight = torch.randn(5, 6)
    module = Linear(4.0, 0.5)
    torch.testing.assert_close(module(module.similarity(features, weight), targets), 4 * features @ weight.T)


def test_arc_margin_makes_the_target_harder_at_every_angle_and_never_turns_back():
    angles = torch.linspace(0, math.pi, 2001)
    cosine = angles.cos()[:, None]
    logits = ArcSoftmax(1.0, 0.5)(cosine, torch.zeros(2001, dtype=torch.int64))[:, 0]
    assert (logits < cosine[:, 0]).all()
    assert (logits.diff() < 1e-4).all()
    assert logits[-1] < logits[1500] < logits[500]


@pytest.mark.parametrize("layer", [CosSoftmax, ArcSoftmax])
def test_without_margin_the_logits_are_the_scaled_cosines(layer):
    cosine = torch.rand(6, 5) * 2 - 1
    targets = torch.arange(6) % 5
    torch.testing.assert_close(layer(10.0, 0.0)(cosine, targets), 10 * cosine, rtol=1e-5, atol=1e-4)


def test_circle_weights_carry_no_gradient():
    cosine = torch.tensor([[0.3, -0.2, 0.6]], requires_grad=True)
    CircleSoftmax(SCALE, MARGIN)(cosine, torch.tensor([2])).sum().backward()
    expected = [SCALE * (0.3 + MARGIN), SCALE * (-0.2 + MARGIN), SCALE * (1 + MARGIN - 0.6)]
    assert cosine.grad[0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("layer", [Linear, CosSoftmax, ArcSoftmax, CircleSoftmax])
def test_gradients_stay_finite_where_angles_are_degenerate(layer):
    weight = torch.eye(3, requires_grad=True)
    features = torch.tensor([[2.0, 0, 0], [-3.0, 0, 0], [0, 0, 0], [0, 1.0, 0]], requires_grad=True)
    module = layer(30.0, 0.5)
    logits = module(module.similarity(features, weight), torch.tensor([0, 0, 1, 2]))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 1, 2])).backward()
    assert torch.isfinite(features.grad).all()
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("layer", ["Linear", "ArcSoftmax", "CosSoftmax", "CircleSoftmax"])
def test_scores_carry_the_scale_but_no_margin(layer):
    head = build(CLS_LAYER=layer, SCALE=16.0, MARGIN=0.3).train()
    features, targets = batch()
    output = head(features, targets)
    neck = torch.nn.functional.batch_norm(features, None, None, training=True)
    weight = head.weight
    if layer != "Linear":
        neck = neck / neck.norm(dim=1, keepdim=True)
        weight = weight / weight.norm(dim=1, keepdim=True)
    torch.testing.assert_close(output.scores, 16 * (neck @ weight.T).detach(), rtol=1e-4, atol=1e-4)
    target_logits = output.logits.gather(1, targets[:, None])
    if layer in ("ArcSoftmax", "CosSoftmax"):
        assert (target_logits < output.scores.gather(1, targets[:, None])).all()
