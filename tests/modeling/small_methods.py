"""The configuration of a small method whose backbone is a ViT."""

import torch

from fastreid.config import CfgNode, get_cfg


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
