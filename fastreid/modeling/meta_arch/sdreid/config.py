"""The configuration keys of SD-ReID, of both stages, the rules between them, and the release's names."""

from typing import Any

from fastreid.config import FRACTION, NOT_NEGATIVE, PATH, POSITIVE, CfgNode, Changes, Key, Registered, choice
from fastreid.config.releases import RELEASES, Release
from fastreid.utils.errors import UserError

NOTHING, FEATURES, BOTH = Changes.NOTHING, Changes.FEATURES, Changes.BOTH
SCHEDULERS = Registered("fastreid.modeling.meta_arch.sdreid.scheduler_names")


def _projections(kind: str, *trained: str) -> dict[str, Key]:
    return {
        f"TRAIN_{kind}_ATTN_{name}": Key(name in trained, f"{name} of the decoder's attention", None, BOTH)
        for name in ("Q", "K", "V", "OUT")
    }


UNET: dict[str, Any] = {
    "PRETRAINED_PATH": Key("", "diffusers UNet folder; empty: a small one of WIDTHS", PATH, NOTHING),
    "WIDTHS": Key([64, 128, 128], "channels per resolution of the small UNet", POSITIVE, BOTH),
    "LAYERS_PER_BLOCK": Key(1, "of the small UNet", POSITIVE, BOTH),
    "HEAD_DIM": Key(32, "attention head width of the small UNet", POSITIVE, BOTH),
    "TRAIN_ALL": Key(False, "train every parameter (needed from random weights)", None, BOTH),
    "TRAINABLE_BLOCK_IDX": Key([0, 1, 2, 3], "decoder (up) blocks with trainable attention", None, BOTH),
    **_projections("SELF"),
    **_projections("CROSS", "K", "V"),
}

TRAINING: dict[str, Any] = {
    "VIEW_NUM": Key(0, "views of the benchmark; 0 = as many as the training data has", NOT_NEGATIVE, BOTH),
    "MOMENTUM": Key(0.8, "weight of the batch in the memory bank's update", FRACTION, BOTH),
    "U_COND_PERCENT": Key(0.05, "share of training samples that get the null context", FRACTION, BOTH),
    "TRAIN_STEP": Key(1000, "timesteps of the noise schedule", POSITIVE, BOTH),
    "TARGET": Key(
        "same_image",
        "the paper's; or another image, in a view drawn at random; or its identity's mean in that view",
        choice("same_image", "cross_view", "identity_mean"),
        BOTH,
    ),
    "PREDICTION_TYPE": Key("epsilon", "of the UNet", choice("epsilon", "sample", "v_prediction"), BOTH),
    "VIEW_MAP": Key(
        "instance", "the VRD's in training; mixed: half each", choice("instance", "prototype", "mixed"), BOTH
    ),
    "TOKEN_DROPOUT": Key(0.0, "probability that training blanks an identity token", FRACTION, BOTH),
    "TOKEN_MIXING": Key(0.0, "and that it takes it from another image of the identity", FRACTION, BOTH),
    "VIEW_SEPARATION": Key(0.0, "weight of the loss that keeps generated views apart", NOT_NEGATIVE, BOTH),
    "STANDARDIZE_LATENT": Key(False, "by statistics of the training set; False = the paper's", None, BOTH),
    "STANDARDIZE_TOKENS": Key(False, "the same for the identity tokens", None, BOTH),
    "CACHE_FEATURES": Key(False, "encode training images once; flip alone augments", changes=NOTHING),
    "GRADIENT_CHECKPOINTING": Key(False, "of the UNet: less memory, a third more time", changes=NOTHING),
    "CHANNELS_LAST": Key(True, "memory of the UNet's convolutions on CUDA", changes=NOTHING),
    "COMPILE": Key(False, "torch.compile the UNet: the first calls take minutes", changes=NOTHING),
    "FIRST_STAGE_CONFIG": {
        "PRETRAINED_PATH": Key("", "VAE folder; checked when named, no part of retrieval", PATH, NOTHING)
    },
    "SCHEDULER_CONFIG": {
        "NAME": Key("ddpm", "the sampler's steps", SCHEDULERS, BOTH),
        "PRETRAINED_PATH": Key("", "diffusers scheduler folder; empty: SD v1.5's schedule", PATH, NOTHING),
        "CUBIC_SAMPLING": Key(True, "t = (1 - u^3) * TRAIN_STEP", None, BOTH),
        "TIMESTEP_POWER": Key(1.0, "without CUBIC_SAMPLING: t = (1 - u^this) * TRAIN_STEP", POSITIVE, BOTH),
    },
    "UNET_CONFIG": UNET,
    "VRD_CONFIG": {
        "KERNEL_SIZES": Key([], "finest first; [] = the strides 2, 4, 8", POSITIVE, BOTH, element=int),
        "PYRAMIDS": Key(["encoder", "decoder"], "UNet halves refined", choice("encoder", "decoder"), BOTH),
    },
    "CON_LEARNER_CONFIG": {
        "DEPTH": Key(1, "transformer layers", POSITIVE, BOTH),
        "HEADS": Key(12, "attention heads", POSITIVE, BOTH),
    },
}

TEST: dict[str, Any] = {
    "PREDICTION": Key("sample", "the paper's steps; mean: in one call", choice("sample", "mean"), FEATURES),
    "NUM_INFERENCE_STEPS": Key(5, "of the sampler", POSITIVE, FEATURES),
    "FULL_GUIDANCE_SCALE": Key(2.0, "of classifier-free guidance; 1 = none", None, FEATURES),
    "FUSION": Key("concat", "weighted: parts of length 1", choice("concat", "weighted"), FEATURES),
    "VIEW_WEIGHT": Key(1.0, "of the generated parts, with FUSION weighted", NOT_NEGATIVE, FEATURES),
    "GENERATED_NECK": Key(False, "generated features pass the identity head's neck", None, FEATURES),
    "REAL_OWN_VIEW": Key(False, "an image's own view is not generated", None, FEATURES),
    "NOISE": Key("common", "the same for all; or by file name", choice("common", "per_image"), FEATURES),
    "AMP": Key(True, "generate as TEST.AMP says were it on; False: as it says", None, FEATURES),
}

VIEW_LOSS: dict[str, Any] = {
    "VIEW_ID": Key(True, "train the view head on the view token"),
    "VIEW_LAMBDA": Key(0.001, "weight of its loss", NOT_NEGATIVE),
}

KEYS = {"MODEL.SDMODEL": TRAINING, "MODEL.LOSSES.CE": VIEW_LOSS, "TEST.SDMODEL": TEST}

# Names in the configuration files of the reference release.
SIZES = "the sizes of the null context and of the View-Refined Decoder are those of encoder and UNet"

RELEASES.append(
    Release(
        renamed={
            "MODEL.SDMODEL.MOEMNTUM": "MOMENTUM",
            "SOLVER.DECAY_EPOCHS": "STEPS",
            "SOLVER.DECAY_RATE": "GAMMA",
        },
        values={
            "MODEL.META_ARCHITECTURE": {
                "Baseline_stage1": "SDReIDStage1",
                "Baseline_stage1_3view": "SDReIDStage1",
                "Baseline_stage2_old": "SDReIDStage2AsReleased",
                "Baseline_stage2_old_3view_2": "SDReIDStage2AsReleased",
            },
            "MODEL.BACKBONE.NAME": {"build_vit_prompt": "build_vit_backbone"},
        },
        ignored=dict.fromkeys(("N_CTX", "CTX_DIM", "IN_CHANNEL", "OUT_CHANNELS"), SIZES),
        homonyms={
            "MODEL.LOSSES.CE.VIEW_OREG": "its code does not read it",
            "MODEL.BACKBONE.INNER_SUB": "its code does not read it",
            "SOLVER.CHECKPOINT_PERIOD": "there it says when the best model may be written",
        },
        only={
            "MODEL.SDMODEL.CON_LEARNER_CONFIG.SWITCH": 2,
            "MODEL.SDMODEL.CON_LEARNER_CONFIG.SWITCH2": 1,
            "TEST.SDMODEL.INVERSE_TYPE": "uc_full",
            "SOLVER.OVERRIDE_LR": 0.0,
        },
        implied={
            "Baseline_stage1_3view": {"MODEL.SDMODEL.VIEW_NUM": 3},
            "Baseline_stage2_old_3view_2": {"MODEL.SDMODEL.VIEW_NUM": 3},
        },
    )
)


def check_rules(cfg: CfgNode) -> None:
    """Check the rules between keys that hold for both stages.

    Raises:
        UserError: naming the keys.
    """
    settings, steps = cfg.MODEL.SDMODEL, cfg.TEST.SDMODEL.NUM_INFERENCE_STEPS
    if steps > settings.TRAIN_STEP:
        raise UserError(
            f"TEST.SDMODEL.NUM_INFERENCE_STEPS is {steps}; it must be at most MODEL.SDMODEL.TRAIN_STEP"
            f" {settings.TRAIN_STEP}"
        )
    if settings.PREDICTION_TYPE == "sample" and settings.SCHEDULER_CONFIG.NAME == "pndm":
        raise UserError(
            "MODEL.SDMODEL.PREDICTION_TYPE sample: diffusers' pndm steps from epsilon or v_prediction only",
            "choose another MODEL.SDMODEL.SCHEDULER_CONFIG.NAME, such as ddim",
        )
    if settings.VIEW_SEPARATION and settings.PREDICTION_TYPE == "epsilon":
        raise UserError(
            f"MODEL.SDMODEL.VIEW_SEPARATION is {settings.VIEW_SEPARATION}, but MODEL.SDMODEL.PREDICTION_TYPE"
            " epsilon: where there is much noise, the clean latent that it stands for is mostly error",
            "set it to sample or v_prediction",
        )
    if cfg.TEST.SDMODEL.REAL_OWN_VIEW and not cfg.TEST.SDMODEL.GENERATED_NECK:
        raise UserError(
            "TEST.SDMODEL.REAL_OWN_VIEW compares generated features with real ones behind the neck, but"
            " TEST.SDMODEL.GENERATED_NECK is False",
            "set it to True",
        )


def check_cached_features(cfg: CfgNode, trains_encoder: bool) -> None:
    """Check that ``CACHE_FEATURES``, where it is on, can give what training would see.

    Raises:
        UserError: if the encoder trains, or an augmentation changes images every time.
    """
    if not cfg.MODEL.SDMODEL.CACHE_FEATURES:
        return
    key = "MODEL.SDMODEL.CACHE_FEATURES"
    if trains_encoder:
        raise UserError(f"{key}: {cfg.MODEL.META_ARCHITECTURE} trains the encoder", "switch it off")
    if cfg.DATALOADER.ON_BAD_IMAGE != "error":
        raise UserError(f"{key} encodes each image once, whatever it is", "set DATALOADER.ON_BAD_IMAGE error")
    for name in ("PADDING", "REA", "CJ"):
        if cfg.INPUT[name].ENABLED:
            raise UserError(
                f"{key} encodes each image once, but INPUT.{name}.ENABLED changes it every time",
                "switch one off",
            )
