"""The configuration keys of the framework. Names follow fast-reid.

Keys of a registered part, such as a loss or an optimiser, stand in the part's own file as its ``KEYS``; keys
of a method in the method's folder, in `add_config`. One line of a key says everything about it, see `Key`.
"""

from typing import Any

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
from fastreid.config.node import CfgNode

NOTHING, FEATURES, BOTH = Changes.NOTHING, Changes.FEATURES, Changes.BOTH

METHODS, DATA = Registered("fastreid.modeling"), Registered("fastreid.data")
SEED = Range(lambda value: 0 <= value < 2**63, f"from 0 to {2**63 - 1}")
COLOUR = Range(lambda value: 0 <= value <= 255, "from 0 to 255")
LAYERS = Range(lambda value: 0 < value <= 1000, "from 1 to 1000")
HALF = Range(lambda value: 0 <= value <= 0.5, "from 0 to 0.5")
DEPTHS = choice("tiny", "small", "base", "large", "custom", "18x", "34x", "50x", "101x")


def _only_lengthens(cfg: CfgNode) -> bool:
    """Tell whether more epochs leave the learning rates of the first ones as they are."""
    return not cfg.entry("SOLVER.SCHED").spans_run


MODEL: dict[str, Any] = {
    "META_ARCHITECTURE": Key("SDReIDStage1", "the method: what trains, how features are made", METHODS, BOTH),
    "DEVICE": Key("auto", "auto (CUDA when there is one), cpu, cuda, cuda:N", changes=NOTHING),
    "SEED": Key(1111, "fixes initialisation, sampling, augmentation and generation noise", SEED, BOTH),
    "WEIGHTS": Key("", "checkpoint to start from or to evaluate", PATH, NOTHING),
    "ALLOW_PARTIAL_WEIGHTS": Key(False, "go on though a checkpoint lacks parameters", changes=NOTHING),
    "FREEZE_LAYERS": Key([], "module name prefixes, frozen for SOLVER.FREEZE_ITERS iterations", element=str),
    "PIXEL_MEAN": Key([127.5, 127.5, 127.5], "RGB, 0-255", None, BOTH, length=3),
    "PIXEL_STD": Key([127.5, 127.5, 127.5], "RGB, 0-255", POSITIVE, BOTH, length=3),
    "BACKBONE": {
        "NAME": Key("build_vit_backbone", "the encoder of images", METHODS, BOTH),
        "DEPTH": Key("base", "custom: NUM_LAYERS, NUM_HEADS, FEAT_DIM; 18x …: a ResNet's", DEPTHS, BOTH),
        "FEAT_DIM": Key(768, "width D; by DEPTH 192, 384, 768, 1024, or a ResNet's", POSITIVE, BOTH),
        "NUM_LAYERS": Key(12, "custom only", LAYERS, BOTH),
        "NUM_HEADS": Key(12, "custom only", POSITIVE, BOTH),
        "PATCH_SIZE": Key(16, "side of a patch in pixels", POSITIVE, BOTH),
        "STRIDE_SIZE": Key([16, 16], "vertical, horizontal; patches may overlap", POSITIVE, BOTH, length=2),
        "CONV_STEM": Key(False, "three convolutions before the patches: to train from scratch", None, BOTH),
        "PRETRAIN": Key(True, "start a training without a checkpoint from PRETRAIN_PATH", changes=NOTHING),
        "PRETRAIN_PATH": Key("pretrained/jx_vit_base_p16_224-80ecf9dd.pth", "timm's format", PATH, NOTHING),
        "DROP_PATH_RATIO": Key(0.1, "of the last block; rises with depth", FRACTION, BOTH),
        "DROP_RATIO": Key(0.0, "of tokens and projections", FRACTION, BOTH),
        "ATT_DROP_RATE": Key(0.0, "of attention weights", FRACTION, BOTH),
        "COMPILE": Key(False, "torch.compile it: the first calls take minutes", changes=NOTHING),
    },
    "HEADS": {
        "NAME": Key("EmbeddingHead", "from a feature to logits and the retrieval feature", METHODS, BOTH),
        "NUM_CLASSES": Key(0, "identities; 0 = as many as the training set has", NOT_NEGATIVE),
        "EMBEDDING_DIM": Key(0, "> 0 adds a linear reduction before the neck", NOT_NEGATIVE, BOTH),
        "POOL_LAYER": Key("Identity", "a ViT's features are pooled already", choice("Identity"), BOTH),
        "NORM": Key("BN", "the neck's normalisation; syncBN: over all ranks", choice("BN", "syncBN"), BOTH),
        "WITH_BNNECK": Key(True, "normalise between metric losses and classifier", None, BOTH),
        "NECK_FEAT": Key("before", "where metric losses see the feature", choice("before", "after"), BOTH),
        "CLS_LAYER": Key("Linear", "the classification layer", METHODS, BOTH),
        "SCALE": Key(1.0, "logit scale of the classification layer", None, BOTH),
        "MARGIN": Key(0.0, "its margin, where it has one", None, BOTH),
    },
    "LOSSES": {"NAME": Key(["CrossEntropyLoss", "TripletLoss"], "losses on the identity head", METHODS)},
}

INPUT: dict[str, Any] = {
    "SIZE_TRAIN": Key([256, 128], "height, width", POSITIVE, length=2),
    "SIZE_TEST": Key([256, 128], "height, width", POSITIVE, BOTH, length=2),
    "FLIP": {"ENABLED": Key(True, "mirror images"), "PROB": Key(0.5, "share of them", FRACTION)},
    "PADDING": {
        "ENABLED": Key(True, "pad by SIZE on every side, then crop back at random"),
        "MODE": Key("constant", "what the border is", choice("constant", "edge", "reflect", "symmetric")),
        "SIZE": Key(10, "pixels", NOT_NEGATIVE),
        "PROB": Key(1.0, "share of images", FRACTION),
    },
    "REA": {
        "ENABLED": Key(True, "random erasing"),
        "PROB": Key(0.5, "share of images", FRACTION),
        "VALUE": Key([123.675, 116.28, 103.53], "RGB, 0-255; ImageNet's mean", COLOUR, length=3),
    },
    "CJ": {
        "ENABLED": Key(False, "colour jitter"),
        "PROB": Key(0.5, "share of images", FRACTION),
        "BRIGHTNESS": Key(0.15, "strength", NOT_NEGATIVE),
        "CONTRAST": Key(0.15, "strength", NOT_NEGATIVE),
        "SATURATION": Key(0.1, "strength", NOT_NEGATIVE),
        "HUE": Key(0.1, "strength", HALF),
    },
}

DATASETS: dict[str, Any] = {
    "ROOT": Key("", "folder that holds the benchmarks' folders; default: FASTREID_DATASETS", PATH, NOTHING),
    "CSV": Key("", "the file that CSVDataset reads: your own data, see docs/own_data.md", PATH, NOTHING),
    "NAMES": Key(["CARGO"], "training sets, joined", Registered("fastreid.data", "DATASETS")),
    "TESTS": Key(["CARGO"], "protocols to evaluate", Registered("fastreid.data", "DATASETS"), NOTHING),
    "COMBINEALL": Key(False, "train on query and gallery too"),
    "HELD_OUT_IDS": Key(0, "training identities kept aside, to evaluate on instead of TESTS", NOT_NEGATIVE),
}

DATALOADER: dict[str, Any] = {
    "SAMPLER_TRAIN": Key("NaiveIdentitySampler", "which images a batch has", DATA),
    "NUM_INSTANCE": Key(4, "images of one identity in a batch", POSITIVE),
    "NUM_WORKERS": Key(8, "processes that read images", NOT_NEGATIVE, NOTHING),
    # A run that an unreadable image has stopped may go on without it.
    "ON_BAD_IMAGE": Key("error", "skip: in training another stands in", choice("error", "skip"), NOTHING),
}

AMP_DTYPE = choice("bf16", "fp16")
CLIP_TYPES = choice("norm", "full_norm", "value")

SOLVER: dict[str, Any] = {
    "IMS_PER_BATCH": Key(128, "images in a batch, over all ranks", POSITIVE),
    "MAX_EPOCH": Key(120, "length of the run", POSITIVE, resumable=_only_lengthens),
    "ITERS_PER_EPOCH": Key(0, "0 = training images // IMS_PER_BATCH", NOT_NEGATIVE),
    "OPT": Key("SGD", "the optimiser", Registered("fastreid.solver")),
    "FUSED": Key(True, "all parameters in one kernel on CUDA, where OPT is torch's", changes=NOTHING),
    "BASE_LR": Key(0.008, "learning rate", POSITIVE),
    "HEADS_LR_FACTOR": Key(1.0, "of the heads' learning rate", NOT_NEGATIVE),
    "BIAS_LR_FACTOR": Key(1.0, "of the biases' learning rate", NOT_NEGATIVE),
    "WEIGHT_DECAY": Key(5e-4, "of weights", NOT_NEGATIVE),
    "WEIGHT_DECAY_BIAS": Key(5e-4, "of biases", NOT_NEGATIVE),
    "WEIGHT_DECAY_NORM": Key(5e-4, "in normalisation layers", NOT_NEGATIVE),
    "SCHED": Key("CosineAnnealingLR", "the learning rate's schedule", Registered("fastreid.solver")),
    "DELAY_EPOCHS": Key(0, "epochs that no schedule counts, as those of the warm-up", NOT_NEGATIVE),
    "WARMUP_ITERS": Key(2000, "iterations", NOT_NEGATIVE),
    "WARMUP_FACTOR": Key(0.01, "where the warm-up starts", FRACTION),
    "WARMUP_METHOD": Key("linear", "how it rises", choice("linear", "constant")),
    "FREEZE_ITERS": Key(0, "how long MODEL.FREEZE_LAYERS stay frozen", NOT_NEGATIVE),
    "CHECKPOINT_PERIOD": Key(20, "epochs between two model_NNNN.pth, which are kept", NOT_NEGATIVE, NOTHING),
    "CHECKPOINT_ITERS": Key(0, "iterations between two model_latest.pth; 0 = none", NOT_NEGATIVE, NOTHING),
    "LOG_PERIOD": Key(50, "iterations between two lines on the console", POSITIVE, NOTHING),
    "CLIP_GRADIENTS": {
        "ENABLED": Key(True, "clip gradients"),
        "CLIP_TYPE": Key("norm", "norm: of each parameter; full_norm: of all together; value", CLIP_TYPES),
        "CLIP_VALUE": Key(5.0, "the limit", POSITIVE),
        "NORM_TYPE": Key(2.0, "order of the norm"),
    },
    "AMP": {
        "ENABLED": Key(True, "mixed precision on CUDA; the CPU computes in float32", changes=NOTHING),
        "DTYPE": Key("bf16", "fp16: with loss scaling", AMP_DTYPE, NOTHING),
    },
}

TEST: dict[str, Any] = {
    "EVAL_PERIOD": Key(20, "epochs; 0 = only at the end", NOT_NEGATIVE, NOTHING),
    "IMS_PER_BATCH": Key(128, "images encoded at a time", POSITIVE, NOTHING),
    "METRIC": Key("cosine", "distance of features", Registered("fastreid.evaluation"), NOTHING),
    "AMP": {
        "ENABLED": Key(False, "mixed precision in evaluation", None, FEATURES),
        "DTYPE": Key("bf16", "of it", AMP_DTYPE, FEATURES),
        "DEVICES": Key(["cuda"], "that have it; others compute in float32", choice("cuda", "cpu"), FEATURES),
    },
    "FLIP": {"ENABLED": Key(False, "average the features of the image and its mirror image", None, FEATURES)},
    "AQE": {
        "ENABLED": Key(False, "average query expansion", changes=NOTHING),
        "ALPHA": Key(3.0, "power of the similarities", changes=NOTHING),
        "QE_TIME": Key(1, "repeats", POSITIVE, NOTHING),
        "QE_K": Key(5, "neighbours", POSITIVE, NOTHING),
    },
    "RERANK": {
        "ENABLED": Key(False, "k-reciprocal re-ranking", changes=NOTHING),
        "K1": Key(20, "size of the neighbourhoods", POSITIVE, NOTHING),
        "K2": Key(6, "neighbours averaged over", POSITIVE, NOTHING),
        "LAMBDA": Key(0.3, "weight of the original distance", FRACTION, NOTHING),
    },
    "ROC": {"ENABLED": Key(False, "TPR at FPR 1e-4, 1e-3, 1e-2", changes=NOTHING)},
    "EQUAL_TERMS": {
        "DISTRACTORS": Key(0, "drawn for each query beside one match; 0 = off", NOT_NEGATIVE, NOTHING),
        "SEED": Key(1, "of the draws", SEED, NOTHING),
    },
    "PRECISE_BN": {
        "ENABLED": Key(False, "recompute BatchNorm statistics before evaluation", changes=NOTHING),
        "NUM_ITER": Key(300, "batches", POSITIVE, NOTHING),
    },
}

KEYS: dict[str, Any] = {
    "IMPORTS": Key([], "your modules or .py files, which register names", None, NOTHING, element=str),
    "MODEL": MODEL,
    "INPUT": INPUT,
    "DATASETS": DATASETS,
    "DATALOADER": DATALOADER,
    "SOLVER": SOLVER,
    "TEST": TEST,
    "OUTPUT_DIR": Key("logs/run", "of logs and checkpoints", PATH, NOTHING),
    "WANDB_PROJECT": Key("", "of Weights & Biases, that scalars go to as well; '' = none", changes=NOTHING),
    "CUDNN_BENCHMARK": Key(False, "faster convolutions on CUDA, chosen anew by every run", changes=NOTHING),
}
