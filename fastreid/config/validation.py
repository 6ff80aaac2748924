"""What a configuration may say: every value is checked before anything is read or written."""

from typing import Any

from fastreid.config.config import CfgNode, flat_keys
from fastreid.config.defaults import get_cfg
from fastreid.utils.errors import UserError, nearest_name

CHOICES: dict[str, tuple[str, ...]] = {
    "MODEL.BACKBONE.DEPTH": ("tiny", "small", "base", "large", "custom"),
    "MODEL.HEADS.NORM": ("BN", "syncBN"),
    "MODEL.HEADS.NECK_FEAT": ("before", "after"),
    "MODEL.HEADS.POOL_LAYER": ("Identity",),
    "MODEL.HEADS.CLS_LAYER": ("Linear", "ArcSoftmax", "CosSoftmax", "CircleSoftmax"),
    "MODEL.LOSSES.NAME": ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface"),
    "MODEL.SDMODEL.TARGET": ("same_image", "cross_view"),
    "MODEL.SDMODEL.PREDICTION_TYPE": ("epsilon", "sample", "v_prediction"),
    "MODEL.SDMODEL.VIEW_MAP": ("instance", "prototype", "mixed"),
    "MODEL.SDMODEL.VRD_CONFIG.PYRAMIDS": ("encoder", "decoder"),
    "MODEL.SDMODEL.SCHEDULER_CONFIG.NAME": ("ddpm", "ddim", "euler", "pndm", "dpmsolver++", "unipc"),
    "INPUT.PADDING.MODE": ("constant", "edge", "reflect", "symmetric"),
    "DATALOADER.ON_BAD_IMAGE": ("error", "skip"),
    "SOLVER.OPT": ("SGD", "Adam", "AdamW"),
    "SOLVER.SCHED": ("MultiStepLR", "CosineAnnealingLR", "LinearWarmupMultiStepDecayLRScheduler"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("norm", "value"),
    "SOLVER.AMP.DTYPE": ("bf16", "fp16"),
    "TEST.AMP.DTYPE": ("bf16", "fp16"),
    "TEST.METRIC": ("cosine", "euclidean", "jaccard"),
    "TEST.SDMODEL.PREDICTION": ("sample", "mean"),
    "TEST.SDMODEL.FUSION": ("concat", "weighted"),
    "TEST.SDMODEL.NOISE": ("common", "per_image"),
}

POSITIVE = (
    "MODEL.BACKBONE.FEAT_DIM",
    "MODEL.BACKBONE.NUM_LAYERS",
    "MODEL.BACKBONE.NUM_HEADS",
    "MODEL.BACKBONE.PATCH_SIZE",
    "MODEL.BACKBONE.STRIDE_SIZE",
    "MODEL.PIXEL_STD",
    "MODEL.SDMODEL.VIEW_NUM",
    "MODEL.SDMODEL.TRAIN_STEP",
    "MODEL.SDMODEL.SCHEDULER_CONFIG.TIMESTEP_POWER",
    "MODEL.SDMODEL.UNET_CONFIG.WIDTHS",
    "MODEL.SDMODEL.UNET_CONFIG.LAYERS_PER_BLOCK",
    "MODEL.SDMODEL.UNET_CONFIG.HEAD_DIM",
    "MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES",
    "MODEL.SDMODEL.CON_LEARNER_CONFIG.DEPTH",
    "MODEL.SDMODEL.CON_LEARNER_CONFIG.HEADS",
    "INPUT.SIZE_TRAIN",
    "INPUT.SIZE_TEST",
    "DATALOADER.NUM_INSTANCE",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.MAX_EPOCH",
    "SOLVER.BASE_LR",
    "SOLVER.LOG_PERIOD",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
    "SOLVER.AMP.MAX_SKIPPED",
    "TEST.IMS_PER_BATCH",
    "TEST.AQE.QE_K",
    "TEST.AQE.QE_TIME",
    "TEST.RERANK.K1",
    "TEST.RERANK.K2",
    "TEST.PRECISE_BN.NUM_ITER",
    "TEST.SDMODEL.NUM_INFERENCE_STEPS",
)

NOT_NEGATIVE = (
    "DATASETS.HELD_OUT_IDS",
    "MODEL.SEED",
    "MODEL.HEADS.NUM_CLASSES",
    "MODEL.HEADS.EMBEDDING_DIM",
    "MODEL.LOSSES.CE.VIEW_LAMBDA",
    "MODEL.LOSSES.TRI.MARGIN",
    "INPUT.PADDING.SIZE",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.ITERS_PER_EPOCH",
    "SOLVER.HEADS_LR_FACTOR",
    "SOLVER.BIAS_LR_FACTOR",
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.WEIGHT_DECAY_NORM",
    "SOLVER.ETA_MIN_LR",
    "SOLVER.DELAY_EPOCHS",
    "SOLVER.STEPS",
    "SOLVER.GAMMA",
    "SOLVER.WARMUP_ITERS",
    "SOLVER.FREEZE_ITERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINT_ITERS",
    "TEST.EVAL_PERIOD",
    "TEST.SDMODEL.VIEW_WEIGHT",
)

FRACTIONS = (
    "MODEL.BACKBONE.DROP_PATH_RATIO",
    "MODEL.BACKBONE.DROP_RATIO",
    "MODEL.BACKBONE.ATT_DROP_RATE",
    "MODEL.SDMODEL.MOMENTUM",
    "MODEL.SDMODEL.U_COND_PERCENT",
    "MODEL.SDMODEL.TOKEN_DROPOUT",
    "MODEL.SDMODEL.TOKEN_MIXING",
    "INPUT.FLIP.PROB",
    "INPUT.PADDING.PROB",
    "INPUT.REA.PROB",
    "INPUT.CJ.PROB",
    "SOLVER.WARMUP_FACTOR",
    "TEST.RERANK.LAMBDA",
)

# Lists whose default is empty: what they hold. Of the others the default shows it.
ELEMENTS: dict[str, type] = {"MODEL.FREEZE_LAYERS": str, "MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES": int}

LENGTHS = {
    "MODEL.PIXEL_MEAN": 3,
    "MODEL.PIXEL_STD": 3,
    "MODEL.BACKBONE.STRIDE_SIZE": 2,
    "INPUT.SIZE_TRAIN": 2,
    "INPUT.SIZE_TEST": 2,
    "INPUT.REA.VALUE": 3,
}


def check_config(cfg: CfgNode, world_size: int = 1, training: bool = True) -> None:
    """Check every value on its own and, for training, the batch size against instances and processes.

    Names that a registry knows (datasets, samplers, architectures) are checked by their registry.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    values = flat_keys(cfg)
    _check_elements(values)
    for key, allowed in CHOICES.items():
        for value in _items(values[key]):
            if value not in allowed:
                near = nearest_name(value, list(allowed))
                raise UserError(f"{key} is {value!r}; allowed: {', '.join(allowed)}.{near}")
    for key, length in LENGTHS.items():
        if len(values[key]) != length:
            raise UserError(f"{key} is {values[key]!r}; expected {length} numbers")
    for keys, is_allowed, expected in (
        (POSITIVE, lambda value: value > 0, "greater than 0"),
        (NOT_NEGATIVE, lambda value: value >= 0, "0 or more"),
        (FRACTIONS, lambda value: 0 <= value <= 1, "from 0 to 1"),
    ):
        for key in keys:
            for value in _items(values[key]):
                if not isinstance(value, int | float) or not is_allowed(value):
                    raise UserError(f"{key} is {values[key]!r}; it must be {expected}")
    _check_limits(values)
    settings = cfg.MODEL.SDMODEL
    if settings.PREDICTION_TYPE == "sample" and settings.SCHEDULER_CONFIG.NAME == "pndm":
        raise UserError(
            "MODEL.SDMODEL.PREDICTION_TYPE sample: diffusers' pndm steps from epsilon or v_prediction only;"
            " choose another MODEL.SDMODEL.SCHEDULER_CONFIG.NAME, such as ddim"
        )
    if training:
        _check_cached_features(cfg)
        _check_batch_size(cfg, world_size)


def _check_elements(values: dict[str, Any]) -> None:
    """The type of every list's elements: a list that was empty at some time has lost its example."""
    for key, default in flat_keys(get_cfg()).items():
        if not isinstance(default, list):
            continue
        kind = ELEMENTS.get(key) or type(default[0])
        for value in values[key]:
            if type(value) is not kind:
                raise UserError(
                    f"{key} is {values[key]!r}: expected a list of {kind.__name__}, found"
                    f" {type(value).__name__} {value!r}"
                )


def _check_limits(values: dict[str, Any]) -> None:
    for key, limit, of in (
        ("MODEL.SEED", 2**63 - 1, ""),
        ("MODEL.LOSSES.CE.EPSILON", 1, ""),
        ("TEST.SDMODEL.NUM_INFERENCE_STEPS", values["MODEL.SDMODEL.TRAIN_STEP"], "MODEL.SDMODEL.TRAIN_STEP "),
    ):
        if values[key] > limit:
            raise UserError(f"{key} is {values[key]!r}; it must be at most {of}{limit}")


def _check_cached_features(cfg: CfgNode) -> None:
    if not cfg.MODEL.SDMODEL.CACHE_FEATURES:
        return
    reason = None
    if cfg.MODEL.META_ARCHITECTURE != "SDReIDStage2":
        reason = (
            f"trains the frozen encoder's stage, but MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}"
        )
    for key in ("PADDING", "REA", "CJ"):
        if cfg.INPUT[key].ENABLED:
            reason = f"encodes each image once, but INPUT.{key}.ENABLED changes it every time: switch one off"
    if cfg.DATALOADER.ON_BAD_IMAGE != "error":
        reason = "encodes each image once: DATALOADER.ON_BAD_IMAGE must be error"
    if reason:
        raise UserError(f"MODEL.SDMODEL.CACHE_FEATURES {reason}")


def _check_batch_size(cfg: CfgNode, world_size: int) -> None:
    batch, instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    step = world_size * (1 if cfg.DATALOADER.SAMPLER_TRAIN == "TrainingSampler" else instances)
    if batch % step:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {batch}, which {world_size} process(es) cannot share in identities"
            f" of DATALOADER.NUM_INSTANCE {instances} images; use a multiple of {step}"
        )


def _items(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]
