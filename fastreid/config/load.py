"""A configuration from its file and from what the command line changes."""

from collections.abc import Sequence

from fastreid.config.defaults import get_cfg
from fastreid.config.node import CfgNode


def load_config(config_file: str, options: Sequence[str] = ()) -> CfgNode:
    """Return the configuration, not yet checked: defaults, the file (if any), then ``["KEY", "VALUE", …]``.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value of the wrong type.
    """
    cfg = get_cfg()
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(options))
    return cfg
