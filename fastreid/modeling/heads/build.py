"""The head registry: a head is built from (cfg, feat_dim, num_classes)."""

from fastreid.utils.registry import Registry

REID_HEADS_REGISTRY = Registry("head", "MODEL.HEADS.NAME")
