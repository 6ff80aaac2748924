"""The settings of the study: all that it trains and compares, and every way to retrieve with it."""

from dataclasses import dataclass, field
from typing import Any, Literal

Options = dict[str, Any]

PROTOCOLS = {
    "CARGO": ("CARGO_A2G", "CARGO_G2A", "CARGO_AG"),
    "AG_ReID_v2": ("AG_ReID_v2_AC", "AG_ReID_v2_AW", "AG_ReID_v2_CA", "AG_ReID_v2_WA"),
}
GOALS = {"CARGO": ("CARGO_AG",), "AG_ReID_v2": PROTOCOLS["AG_ReID_v2"]}
"""What a layout's gain is: the mean of these. CARGO's two ways at once are a protocol of its own."""

HELD_OUT_GOALS = {"CARGO": ("held_out_two_way",), "AG_ReID_v2": ()}
"""The same on held-out identities; (): the mean of all ways, each from one view to another."""

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # VIEW_WEIGHTs to choose from, on held-out identities
PARTS = 4  # stripes of two rows of patches
REFERENCE = "Stage 1 with flips"
TOGETHER = "levers together"
ALL = "all levers"


@dataclass(frozen=True)
class Retrieval:
    """A way to retrieve with trained weights.

    Attributes:
        name: of its rows.
        options: of TEST.SDMODEL, how features are generated.
        real_own_view: join them as TEST.SDMODEL.REAL_OWN_VIEW does.
        as_published: join them by plain concatenation, too.
    """

    name: str
    options: Options = field(default_factory=dict)
    real_own_view: bool = False
    as_published: bool = False


_MEAN = {"TEST.SDMODEL.PREDICTION": "mean"}
PLAIN = Retrieval("")
SAMPLED = Retrieval("5 steps, guidance 2", as_published=True)
MEANS = Retrieval("mean", _MEAN), Retrieval("mean, own view real", _MEAN, real_own_view=True)


@dataclass(frozen=True)
class Setting:
    """A generator to train, or what it is compared with.

    Attributes:
        name: of its rows.
        options: configuration keys on top of `configs/base_stage2.yml`.
        retrievals: each is a row.
        scope: the first layout's first seed, or all of them.
        kind: a generator; a multi-layer perceptron in its place; or what `baselines` makes, untrained but for
            the linear discriminant analysis.
    """

    name: str
    options: Options = field(default_factory=dict)
    retrievals: tuple[Retrieval, ...] = MEANS
    scope: Literal["one", "all"] = "one"
    kind: Literal["generator", "mlp", "stage 1", "flips", "constant", "lda"] = "generator"


_SCHEDULE = "MODEL.SDMODEL.SCHEDULER_CONFIG"
LEVERS: Options = {
    "MODEL.SDMODEL.TARGET": "cross_view",
    "MODEL.SDMODEL.PREDICTION_TYPE": "sample",
    "MODEL.SDMODEL.VIEW_MAP": "prototype",
    "MODEL.SDMODEL.STANDARDIZE_TOKENS": True,
    "MODEL.SDMODEL.TOKEN_MIXING": 0.3,
    "MODEL.SDMODEL.U_COND_PERCENT": 0.0,
    f"{_SCHEDULE}.CUBIC_SAMPLING": False,
    f"{_SCHEDULE}.TIMESTEP_POWER": 30.0,
}
IDENTITY_MEAN: Options = {"MODEL.SDMODEL.TARGET": "identity_mean"}
PART_TOKENS: Options = {"MODEL.BACKBONE.PART_TOKENS": PARTS}
VIEWS_APART: Options = {"MODEL.SDMODEL.VIEW_SEPARATION": 1.0}
NEW = LEVERS | IDENTITY_MEAN | PART_TOKENS | VIEWS_APART
MLP: Options = {"SOLVER.BASE_LR": 0.001}
LONGER: Options = {"SOLVER.MAX_EPOCH": 40}  # 4 x the iterations of base_stage2.yml

SETTINGS = (
    Setting("Stage 1", {}, (PLAIN,), "all", "stage 1"),
    Setting(REFERENCE, {}, (PLAIN,), "all", "flips"),
    Setting("constant column", {}, (PLAIN,), "all", "constant"),
    Setting("LDA", {}, (PLAIN,), "all", "lda"),
    Setting("LDA, part tokens", PART_TOKENS, (PLAIN,), "all", "lda"),
    Setting("paper", {}, (SAMPLED,), "all"),
    Setting("MLP", LEVERS | MLP, scope="all", kind="mlp"),
    Setting(TOGETHER, LEVERS, scope="all"),
    Setting("MLP, 4 x the iterations", LEVERS | MLP | LONGER, scope="all", kind="mlp"),
    Setting(f"{TOGETHER}, 4 x the iterations", LEVERS | LONGER, scope="all"),
    Setting("paper, 4 x the iterations", LONGER, (SAMPLED,)),
    Setting(f"{TOGETHER}, identity mean", LEVERS | IDENTITY_MEAN),
    Setting(f"{TOGETHER}, part tokens", LEVERS | PART_TOKENS),
    Setting(f"{TOGETHER}, views apart", LEVERS | VIEWS_APART),
    Setting(f"MLP, {ALL}", NEW | MLP, kind="mlp"),
    Setting(ALL, NEW),
    Setting(f"{ALL}, 4 x the iterations", NEW | LONGER),
    Setting(f"{TOGETHER}, 8 x the iterations", LEVERS | {"SOLVER.MAX_EPOCH": 80}),
)
