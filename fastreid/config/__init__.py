"""Configuration: :func:`get_cfg` gives the defaults, YAML files and ``KEY VALUE`` pairs change them."""

from fastreid.config.config import CfgNode, get_cfg

__all__ = ["CfgNode", "get_cfg"]
