"""Configuration: :func:`get_cfg` gives the defaults, YAML files and ``KEY VALUE`` pairs change them."""

from fastreid.config.keys import (
    FRACTION,
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    Changes,
    Key,
    Range,
    Registered,
    choice,
)
from fastreid.config.load import check_config, get_cfg, load_config
from fastreid.config.node import CfgNode
