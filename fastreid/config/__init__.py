"""Configuration: :func:`get_cfg` gives the defaults, YAML files and ``KEY VALUE`` pairs change them."""

from fastreid.config.check import check_config
from fastreid.config.defaults import get_cfg
from fastreid.config.keys import FRACTION, NOT_NEGATIVE, POSITIVE, Changes, Key, Range, Registered, choice
from fastreid.config.load import load_config
from fastreid.config.node import CfgNode
