"""TEST.SDMODEL.AMP: features are generated in mixed precision, and ranks stay what they are in float32."""

import pytest
import torch
from worlds.options import tiny_cfg

from fastreid.data import build_train_dataset
from fastreid.evaluation.extraction import extract_over_ranks
from fastreid.modeling import build_model, fit_config

BOTH = ["TEST.AMP.DEVICES", "['cuda', 'cpu']"]


@pytest.fixture(scope="module")
def features(cargo):
    """The features of the embedded benchmark's training images, by one Stage 2 in three precisions."""
    features = {}
    for name, options in {
        "float32": [],
        "generated": BOTH,
        "all": [*BOTH, "TEST.AMP.ENABLED", "True"],
    }.items():
        cfg = tiny_cfg(cargo, "MODEL.META_ARCHITECTURE", "SDReIDStage2", *options)
        torch.manual_seed(0)
        model = build_model(fit_config(cfg, 8, ("aerial", "ground"))).eval()
        for parameter in model.generator.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)  # some of them start at zero
        model.memory_bank.prototypes.normal_()
        found = extract_over_ranks(cfg, model, build_train_dataset(cfg).samples)
        features[name] = found.split(list(model.feature_parts().values()), dim=1)
    return features


def test_the_encoder_computes_in_float32_unless_all_is_in_mixed_precision(features):
    person, *generated = features["float32"]
    assert torch.equal(features["generated"][0], person)
    assert not torch.equal(features["all"][0], person)
    for part, other in zip(generated, features["generated"][1:], strict=True):
        assert part.dtype == other.dtype == torch.float32
        assert not torch.equal(part, other)


@pytest.mark.parametrize("precision", ["generated", "all"])
def test_features_of_bf16_have_cosine_0_999_with_those_of_float32(features, precision):
    for part, other in zip(features["float32"], features[precision], strict=True):
        assert torch.cosine_similarity(part, other, dim=1).min() > 0.999


def order_of(parts: list[torch.Tensor]) -> torch.Tensor:
    """Return for each of N images the others (N, N-1), the nearest by cosine first."""
    unit = torch.nn.functional.normalize(torch.cat(parts, dim=1).double(), dim=1)
    return (unit @ unit.T).fill_diagonal_(-2).argsort(dim=1, descending=True)[:, :-1]


@pytest.mark.parametrize("first", [0, 1], ids=["whole feature", "generated parts alone"])
def test_ranks_of_bf16_are_those_of_float32_but_for_near_ties(features, first):
    """9 of 10 images have the same nearest one, and of the nearest ten nine are the same on the average."""
    plain, rounded = (order_of(features[name][first:]) for name in ("float32", "generated"))
    assert (plain[:, 0] == rounded[:, 0]).float().mean() >= 0.9
    shared = (plain[:, :10, None] == rounded[:, None, :10]).sum((1, 2))
    assert shared.float().mean() >= 9
