"""The settings of the study: all that it trains, and every way to retrieve with it."""

from dataclasses import dataclass, field
from typing import Any, Literal

Options = dict[str, Any]

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # VIEW_WEIGHTs to choose from, on held-out identities
TOGETHER = "levers together"


@dataclass(frozen=True)
class Retrieval:
    """A way to generate with trained weights: options of TEST.SDMODEL."""

    name: str
    options: Options = field(default_factory=dict)


MEAN = Retrieval("mean", {"TEST.SDMODEL.PREDICTION": "mean"})
SAMPLED = Retrieval("5 steps, guidance 2")


@dataclass(frozen=True)
class Setting:
    """A generator, or the regression control, to train.

    Attributes:
        name: of its rows.
        options: configuration keys on top of `configs/base_stage2.yml`.
        retrievals: each is a row.
        scope: one encoder; all layouts and seeds; or these and fewer training identities, too.
        control: train the regression control.
    """

    name: str
    options: Options = field(default_factory=dict)
    retrievals: tuple[Retrieval, ...] = (MEAN,)
    scope: Literal["one", "seeds", "identities"] = "one"
    control: bool = False


_STEPS = "TEST.SDMODEL.NUM_INFERENCE_STEPS"
_GUIDANCE = "TEST.SDMODEL.FULL_GUIDANCE_SCALE"
_SCHEDULE = "MODEL.SDMODEL.SCHEDULER_CONFIG"
_PYRAMIDS = "MODEL.SDMODEL.VRD_CONFIG.PYRAMIDS"
CROSS_VIEW = {"MODEL.SDMODEL.TARGET": "cross_view"}
NEAR_NOISE = {f"{_SCHEDULE}.CUBIC_SAMPLING": False, f"{_SCHEDULE}.TIMESTEP_POWER": 30.0}
LEVERS = (
    CROSS_VIEW
    | NEAR_NOISE
    | {
        "MODEL.SDMODEL.PREDICTION_TYPE": "sample",
        "MODEL.SDMODEL.VIEW_MAP": "prototype",
        "MODEL.SDMODEL.STANDARDIZE_TOKENS": True,
        "MODEL.SDMODEL.TOKEN_MIXING": 0.3,
        "MODEL.SDMODEL.U_COND_PERCENT": 0.0,
    }
)
CONTROL = CROSS_VIEW | {"SOLVER.BASE_LR": 0.001, "MODEL.SDMODEL.STANDARDIZE_TOKENS": True}
LONGER = {"SOLVER.MAX_EPOCH": 40}  # 4 x the iterations of base_stage2.yml

SETTINGS = (
    Setting("paper", {}, (SAMPLED,), scope="identities"),
    Setting("MLP control", CONTROL, scope="identities", control=True),
    Setting(TOGETHER, LEVERS, scope="identities"),
    Setting(f"{TOGETHER}, 4 x the iterations", LEVERS | LONGER, scope="seeds"),
    Setting("MLP control, 4 x the iterations", CONTROL | LONGER, scope="seeds", control=True),
    Setting("paper, 4 x the iterations", LONGER, (SAMPLED,)),
    Setting(
        "cross-view",
        CROSS_VIEW,
        (
            MEAN,
            SAMPLED,
            Retrieval("5 steps, guidance 0 (control)", {_GUIDANCE: 0.0}),
            Retrieval("5 steps, guidance 1", {_GUIDANCE: 1.0}),
            Retrieval("5 steps, guidance 3", {_GUIDANCE: 3.0}),
            Retrieval("2 steps, guidance 2", {_STEPS: 2}),
            Retrieval("10 steps, guidance 2", {_STEPS: 10}),
            Retrieval("5 steps, guidance 2, noise of each image", {"TEST.SDMODEL.NOISE": "per_image"}),
        ),
    ),
    Setting("cross-view, clean latent", CROSS_VIEW | {"MODEL.SDMODEL.PREDICTION_TYPE": "sample"}),
    Setting("cross-view, velocity", CROSS_VIEW | {"MODEL.SDMODEL.PREDICTION_TYPE": "v_prediction"}),
    Setting("cross-view, prototype maps", CROSS_VIEW | {"MODEL.SDMODEL.VIEW_MAP": "prototype"}),
    Setting("cross-view, mixed maps", CROSS_VIEW | {"MODEL.SDMODEL.VIEW_MAP": "mixed"}),
    Setting("cross-view, uniform timesteps", CROSS_VIEW | {f"{_SCHEDULE}.CUBIC_SAMPLING": False}),
    Setting("cross-view, near-noise timesteps", CROSS_VIEW | NEAR_NOISE),
    Setting("cross-view, raw latents", CROSS_VIEW | {"MODEL.SDMODEL.STANDARDIZE_LATENT": False}),
    Setting("cross-view, standardised tokens", CROSS_VIEW | {"MODEL.SDMODEL.STANDARDIZE_TOKENS": True}),
    Setting("cross-view, token dropout", CROSS_VIEW | {"MODEL.SDMODEL.TOKEN_DROPOUT": 0.2}),
    Setting("cross-view, token mixing", CROSS_VIEW | {"MODEL.SDMODEL.TOKEN_MIXING": 0.3}),
    Setting(f"{TOGETHER}, 8 x the iterations", LEVERS | {"SOLVER.MAX_EPOCH": 80}),
    Setting(f"{TOGETHER}, no VRD", LEVERS | {_PYRAMIDS: []}),
    Setting(f"{TOGETHER}, VRD in the encoder", LEVERS | {_PYRAMIDS: ["encoder"]}),
    Setting(f"{TOGETHER}, VRD in the decoder", LEVERS | {_PYRAMIDS: ["decoder"]}),
)
