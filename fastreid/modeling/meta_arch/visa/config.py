"""The keys of ViSA, and its release's names for them."""

from fastreid.config import NOT_NEGATIVE, POSITIVE, CfgNode, Changes, Key
from fastreid.config.releases import RELEASES, Release
from fastreid.modeling.meta_arch.vdt import CHECKPOINT_PERIOD
from fastreid.utils.errors import UserError

OWN_BACKBONE = "build_view_tokens_vit_backbone"

BOTH = Changes.BOTH
KEYS = {
    "USE_VISA": Key(True, "have a local feature: queries of experts, and their regions", None, BOTH),
    "BACKBONE": {
        "VIEW_NUM": Key(
            0, "views told apart, the last and those after it as one; 0 = all of them", NOT_NEGATIVE, BOTH
        ),
        "PROMPT_LEN": Key(16, "semantic queries that an expert makes", POSITIVE, BOTH),
        "EXPERTS": Key(8, "experts of each view, and of what views share", POSITIVE, BOTH),
        "TOP_K": Key(2, "experts of each that make an image's queries", POSITIVE, BOTH),
        "GRAPH_TOP_K": Key(64, "patches in a graph", POSITIVE, BOTH),
    },
    "LOSSES": {"BALANCE": Key(1e-4, "weight of the loss that spreads images over the experts", NOT_NEGATIVE)},
}

_UNREAD = "its code reads it nowhere"
RELEASES.append(
    Release(
        values={
            "MODEL.META_ARCHITECTURE": {"Baseline_multiview_ViSA": "ViSA"},
            "MODEL.BACKBONE.NAME": {"build_multiview_vit_backbone_ViSA": OWN_BACKBONE},
        },
        homonyms={
            "MODEL.BACKBONE.PROMPT_DEPTH": _UNREAD,
            "MODEL.BACKBONE.USE_PRM": _UNREAD,
        }
        | CHECKPOINT_PERIOD,
        only={"INPUT.CAMERA": 0},
        implied={"Baseline_multiview_ViSA": {"MODEL.BACKBONE.VIEW_NUM": 2}},
    )
)


def check_rules(cfg: CfgNode) -> None:
    """Check the rules between ViSA's keys.

    Raises:
        UserError: naming the keys.
    """
    options = cfg.MODEL.BACKBONE
    if options.TOP_K > options.EXPERTS:
        raise UserError(
            f"MODEL.BACKBONE.TOP_K is {options.TOP_K}, but there are {options.EXPERTS} experts of each",
            f"use at most MODEL.BACKBONE.EXPERTS ({options.EXPERTS})",
        )
