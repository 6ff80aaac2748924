"""The configuration of a small method whose backbone is a ViT."""

import torch

from fastreid.config import CfgNode, get_cfg
from fastreid.modeling import MetaArch, build_model
from fastreid.structures import Batch, DataNames

PLAIN = ("MODEL.BACKBONE.NAME", "build_plain_vit_backbone")
NO_VIEWS = ("MODEL.LOSSES.CE.VIEW_ID", "False", "MODEL.LOSSES.CE.VIEW_OREG", "False")
NAMES = {views: DataNames(views=("aerial", "cctv", "wearable")[:views]) for views in (2, 3)}


def check_is_the_plain_vit(model: MetaArch, batch: Batch) -> None:
    """Compare parameters, losses and features with those of `ViTBaseline`, number by number."""
    baseline = build_model(small_vit_cfg("ViTBaseline", PLAIN[1]), NAMES[2])
    assert list(model.state_dict()) == list(baseline.state_dict())
    assert all(map(torch.equal, model.state_dict().values(), baseline.state_dict().values()))
    assert model(batch) == baseline(batch)
    assert torch.equal(model.eval()(batch), baseline.eval()(batch))
    assert model.feature_parts() == baseline.feature_parts()
    assert model.test_labels == frozenset()


def small_vit_cfg(method: str, backbone: str, *options: str) -> CfgNode:
    """6 identities on 64x32 images, 3 blocks of width 128."""
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", method, "MODEL.DEVICE", "cpu"])
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", backbone, "MODEL.BACKBONE.DEPTH", "custom"])
    cfg.merge_from_list(["MODEL.BACKBONE.FEAT_DIM", "128", "MODEL.BACKBONE.NUM_LAYERS", "3"])
    cfg.merge_from_list(["MODEL.BACKBONE.NUM_HEADS", "4", "MODEL.BACKBONE.DROP_PATH_RATIO", "0.0"])
    cfg.merge_from_list(["MODEL.HEADS.NUM_CLASSES", "6", "INPUT.SIZE_TRAIN", "[64, 32]"])
    cfg.merge_from_list(["INPUT.SIZE_TEST", "[64, 32]", *options])
    torch.manual_seed(0)
    return cfg
