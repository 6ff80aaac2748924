"""Configuration: :func:`get_cfg` gives the defaults, YAML files and ``KEY VALUE`` pairs change them."""

from fastreid.config.config import CfgNode
from fastreid.config.defaults import get_cfg
from fastreid.config.validation import check_config

__all__ = ["CfgNode", "check_config", "get_cfg"]
