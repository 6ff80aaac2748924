"""The backbone registry: a backbone is built from a config and maps images to an `EncoderOutput`."""

from fastreid.utils.registry import Registry

BACKBONE_REGISTRY = Registry("backbone", "MODEL.BACKBONE.NAME")
