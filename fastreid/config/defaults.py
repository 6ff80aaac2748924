"""The one list of configuration keys. Names follow fast-reid; `SDMODEL` groups are SD-ReID's own."""

import os

from fastreid.config.config import CfgNode as CN

_C = CN()

# ---------------------------------------------------------------------------------------------------- model
_C.MODEL = CN()
_C.MODEL.META_ARCHITECTURE = "SDReIDStage1"  # or SDReIDStage2
_C.MODEL.DEVICE = "auto"  # auto (CUDA when there is one), cpu, cuda, cuda:N
_C.MODEL.SEED = 1111  # fixes initialisation, sampling, augmentation and generation noise
_C.MODEL.WEIGHTS = ""  # checkpoint to start from or to evaluate; Stage 2 starts from a Stage-1 checkpoint
_C.MODEL.ALLOW_PARTIAL_WEIGHTS = False  # go on when a checkpoint lacks parameters that the run depends on
_C.MODEL.FREEZE_LAYERS = []  # module name prefixes kept frozen for the first SOLVER.FREEZE_ITERS iterations
_C.MODEL.PIXEL_MEAN = [127.5, 127.5, 127.5]  # RGB, 0-255
_C.MODEL.PIXEL_STD = [127.5, 127.5, 127.5]

_C.MODEL.BACKBONE = CN()
_C.MODEL.BACKBONE.NAME = "build_vit_backbone"
_C.MODEL.BACKBONE.DEPTH = "base"  # tiny, small, base, large; custom reads NUM_LAYERS, NUM_HEADS and FEAT_DIM
_C.MODEL.BACKBONE.FEAT_DIM = 768  # width D; must be the depth's own (192, 384, 768, 1024) unless custom
_C.MODEL.BACKBONE.NUM_LAYERS = 12  # custom only
_C.MODEL.BACKBONE.NUM_HEADS = 12  # custom only
_C.MODEL.BACKBONE.PATCH_SIZE = 16
_C.MODEL.BACKBONE.STRIDE_SIZE = [
    16,
    16,
]  # (vertical, horizontal); smaller than PATCH_SIZE = overlapping patches
_C.MODEL.BACKBONE.CONV_STEM = (
    False  # three convolutions before the patch projection: for training from scratch
)
_C.MODEL.BACKBONE.PRETRAIN = True  # load PRETRAIN_PATH before Stage-1 training
_C.MODEL.BACKBONE.PRETRAIN_PATH = "pretrained/jx_vit_base_p16_224-80ecf9dd.pth"  # timm-format ViT
_C.MODEL.BACKBONE.DROP_PATH_RATIO = 0.1
_C.MODEL.BACKBONE.DROP_RATIO = 0.0
_C.MODEL.BACKBONE.ATT_DROP_RATE = 0.0

_C.MODEL.HEADS = CN()
_C.MODEL.HEADS.NAME = "EmbeddingHead"
_C.MODEL.HEADS.NUM_CLASSES = 0  # identities; 0 = as many as the training set has
_C.MODEL.HEADS.EMBEDDING_DIM = 0  # > 0 adds a linear reduction before the neck
_C.MODEL.HEADS.POOL_LAYER = "Identity"  # the ViT's features are pooled already
_C.MODEL.HEADS.NORM = "BN"  # the neck's normalisation: BN, or syncBN over all ranks
_C.MODEL.HEADS.WITH_BNNECK = True
_C.MODEL.HEADS.NECK_FEAT = "before"  # which feature metric losses see: before or after the neck
_C.MODEL.HEADS.CLS_LAYER = "Linear"  # Linear, ArcSoftmax, CosSoftmax, CircleSoftmax
_C.MODEL.HEADS.SCALE = 1.0  # logit scale of the classification layer
_C.MODEL.HEADS.MARGIN = 0.0  # its margin (ArcSoftmax, CosSoftmax, CircleSoftmax)

_C.MODEL.LOSSES = CN()
_C.MODEL.LOSSES.NAME = ["CrossEntropyLoss", "TripletLoss"]  # also CircleLoss, Cosface
_C.MODEL.LOSSES.CE = CN()
_C.MODEL.LOSSES.CE.EPSILON = 0.0  # label smoothing; -1 = adaptive
_C.MODEL.LOSSES.CE.ALPHA = 0.2  # strength of the adaptive smoothing
_C.MODEL.LOSSES.CE.SCALE = 1.0
_C.MODEL.LOSSES.CE.VIEW_ID = True  # train the view head on the view token
_C.MODEL.LOSSES.CE.VIEW_LAMBDA = 0.1  # weight of its loss
_C.MODEL.LOSSES.TRI = CN()
_C.MODEL.LOSSES.TRI.MARGIN = 0.0  # 0 = soft margin
_C.MODEL.LOSSES.TRI.NORM_FEAT = False  # 2 - 2 cosine instead of the Euclidean distance
_C.MODEL.LOSSES.TRI.HARD_MINING = True  # False = softmax-weighted positives and negatives
_C.MODEL.LOSSES.TRI.SCALE = 1.0
_C.MODEL.LOSSES.CIRCLE = CN()
_C.MODEL.LOSSES.CIRCLE.MARGIN = 0.25
_C.MODEL.LOSSES.CIRCLE.GAMMA = 128.0
_C.MODEL.LOSSES.CIRCLE.SCALE = 1.0
_C.MODEL.LOSSES.COSFACE = CN()
_C.MODEL.LOSSES.COSFACE.MARGIN = 0.25
_C.MODEL.LOSSES.COSFACE.GAMMA = 128.0
_C.MODEL.LOSSES.COSFACE.SCALE = 1.0

_C.MODEL.SDMODEL = CN()
_C.MODEL.SDMODEL.VIEW_NUM = 2  # views of the benchmark: 2, or 3 on AG-ReID.v2
_C.MODEL.SDMODEL.MOMENTUM = 0.8  # weight of the batch in the memory bank's update
_C.MODEL.SDMODEL.U_COND_PERCENT = 0.2  # share of training samples that get the learned null context
_C.MODEL.SDMODEL.TRAIN_STEP = 1000  # timesteps of the noise schedule
_C.MODEL.SDMODEL.TARGET = "same_image"  # the paper's; cross_view = another view of the same identity
_C.MODEL.SDMODEL.PREDICTION_TYPE = "epsilon"  # what the UNet predicts: epsilon (noise), sample, v_prediction
_C.MODEL.SDMODEL.VIEW_MAP = (
    "instance"  # the VRD's view map in training: instance, prototype, mixed (half each)
)
_C.MODEL.SDMODEL.TOKEN_DROPOUT = 0.0  # probability that training blanks an identity token
_C.MODEL.SDMODEL.TOKEN_MIXING = 0.0  # and that it takes it from another image of the identity in the batch
_C.MODEL.SDMODEL.STANDARDIZE_LATENT = (
    False  # per-dimension statistics from the training set; False = the paper's
)
_C.MODEL.SDMODEL.STANDARDIZE_TOKENS = False  # the same for the identity tokens

_C.MODEL.SDMODEL.CACHE_FEATURES = False  # encode the training set once, on disk; flip alone as augmentation
_C.MODEL.SDMODEL.GRADIENT_CHECKPOINTING = False  # of the UNet: less memory, a third more time
_C.MODEL.SDMODEL.COMPILE = False  # torch.compile the UNet: the first calls take minutes

_C.MODEL.SDMODEL.FIRST_STAGE_CONFIG = CN()
_C.MODEL.SDMODEL.FIRST_STAGE_CONFIG.PRETRAINED_PATH = (
    ""  # VAE folder; checked when named, no part of retrieval
)

_C.MODEL.SDMODEL.SCHEDULER_CONFIG = CN()
_C.MODEL.SDMODEL.SCHEDULER_CONFIG.NAME = "ddpm"  # ddpm, ddim, euler, pndm, dpmsolver++, unipc
_C.MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH = ""  # diffusers scheduler folder; "" = SD v1.5's schedule
_C.MODEL.SDMODEL.SCHEDULER_CONFIG.CUBIC_SAMPLING = True  # t = (1 - u^3) * TRAIN_STEP
_C.MODEL.SDMODEL.SCHEDULER_CONFIG.TIMESTEP_POWER = (
    1.0  # without CUBIC_SAMPLING: t = (1 - u^this) * TRAIN_STEP
)

_C.MODEL.SDMODEL.UNET_CONFIG = CN()
_C.MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH = ""  # diffusers UNet folder; "" builds a small one from WIDTHS
_C.MODEL.SDMODEL.UNET_CONFIG.WIDTHS = [64, 128, 128]  # channels per resolution of the small UNet
_C.MODEL.SDMODEL.UNET_CONFIG.LAYERS_PER_BLOCK = 1  # of the small UNet
_C.MODEL.SDMODEL.UNET_CONFIG.HEAD_DIM = 32  # attention head width of the small UNet
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_ALL = False  # train every UNet parameter (needed from random weights)
_C.MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX = [
    0,
    1,
    2,
    3,
]  # decoder (up) blocks with trainable attention
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_SELF_ATTN_Q = False
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_SELF_ATTN_K = False
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_SELF_ATTN_V = False
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_SELF_ATTN_OUT = False
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_CROSS_ATTN_Q = False
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_CROSS_ATTN_K = True
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_CROSS_ATTN_V = True
_C.MODEL.SDMODEL.UNET_CONFIG.TRAIN_CROSS_ATTN_OUT = False

_C.MODEL.SDMODEL.VRD_CONFIG = CN()
_C.MODEL.SDMODEL.VRD_CONFIG.KERNEL_SIZES = []  # of its convolutions, finest first; [] = their strides 2, 4, 8
_C.MODEL.SDMODEL.VRD_CONFIG.PYRAMIDS = ["encoder", "decoder"]  # halves of the UNet that are refined

_C.MODEL.SDMODEL.CON_LEARNER_CONFIG = CN()
_C.MODEL.SDMODEL.CON_LEARNER_CONFIG.DEPTH = 1  # transformer layers
_C.MODEL.SDMODEL.CON_LEARNER_CONFIG.HEADS = 12

# ---------------------------------------------------------------------------------------------------- input
_C.INPUT = CN()
_C.INPUT.SIZE_TRAIN = [256, 128]  # height, width
_C.INPUT.SIZE_TEST = [256, 128]
_C.INPUT.FLIP = CN()
_C.INPUT.FLIP.ENABLED = True
_C.INPUT.FLIP.PROB = 0.5
_C.INPUT.PADDING = CN()
_C.INPUT.PADDING.ENABLED = True  # pad by SIZE on every side, then crop back at random
_C.INPUT.PADDING.MODE = "constant"  # constant, edge, reflect, symmetric
_C.INPUT.PADDING.SIZE = 10
_C.INPUT.PADDING.PROB = 1.0
_C.INPUT.REA = CN()
_C.INPUT.REA.ENABLED = True  # random erasing
_C.INPUT.REA.PROB = 0.5
_C.INPUT.REA.VALUE = [127.5, 127.5, 127.5]  # RGB, 0-255
_C.INPUT.CJ = CN()
_C.INPUT.CJ.ENABLED = False  # colour jitter
_C.INPUT.CJ.PROB = 0.5
_C.INPUT.CJ.BRIGHTNESS = 0.15
_C.INPUT.CJ.CONTRAST = 0.15
_C.INPUT.CJ.SATURATION = 0.1
_C.INPUT.CJ.HUE = 0.1

# ----------------------------------------------------------------------------------------------------- data
_C.DATASETS = CN()
_C.DATASETS.ROOT = os.environ.get(
    "FASTREID_DATASETS", "datasets"
)  # folder that holds the benchmarks' folders
_C.DATASETS.CSV = ""  # the file that CSVDataset reads: your own data, see docs/own_data.md
_C.DATASETS.NAMES = ["CARGO"]  # training sets, joined
_C.DATASETS.TESTS = ["CARGO"]  # protocols to evaluate
_C.DATASETS.COMBINEALL = False  # train on query and gallery too
_C.DATASETS.HELD_OUT_IDS = 0  # training identities kept aside, to evaluate on while training; 0: TESTS is

_C.DATALOADER = CN()
_C.DATALOADER.SAMPLER_TRAIN = "NaiveIdentitySampler"  # TrainingSampler, BalancedIdentitySampler, AGSampler
_C.DATALOADER.NUM_INSTANCE = 4  # images of one identity in a batch
_C.DATALOADER.NUM_WORKERS = 8
_C.DATALOADER.ON_BAD_IMAGE = "error"  # skip: another image replaces an unreadable one; in training only

# --------------------------------------------------------------------------------------------------- solver
_C.SOLVER = CN()
_C.SOLVER.IMS_PER_BATCH = 128  # images in a batch, over all ranks
_C.SOLVER.MAX_EPOCH = 120
_C.SOLVER.ITERS_PER_EPOCH = 0  # 0 = training images // IMS_PER_BATCH
_C.SOLVER.OPT = "SGD"  # SGD, Adam, AdamW
_C.SOLVER.BASE_LR = 0.008
_C.SOLVER.HEADS_LR_FACTOR = 1.0
_C.SOLVER.BIAS_LR_FACTOR = 1.0
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.NESTEROV = False
_C.SOLVER.WEIGHT_DECAY = 1e-4
_C.SOLVER.WEIGHT_DECAY_BIAS = 1e-4
_C.SOLVER.WEIGHT_DECAY_NORM = 1e-4
_C.SOLVER.SCHED = "CosineAnnealingLR"  # MultiStepLR, LinearWarmupMultiStepDecayLRScheduler
_C.SOLVER.ETA_MIN_LR = 1.6e-6  # where cosine annealing ends
_C.SOLVER.DELAY_EPOCHS = 0  # epochs before the cosine begins to fall, at the earliest after the warm-up
_C.SOLVER.STEPS = [50]  # epochs at which the multi-step schedules multiply by GAMMA
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.WARMUP_ITERS = 2000  # iterations
_C.SOLVER.WARMUP_FACTOR = 0.01
_C.SOLVER.WARMUP_METHOD = "linear"  # linear, constant
_C.SOLVER.FREEZE_ITERS = 0  # how long MODEL.FREEZE_LAYERS stay frozen
_C.SOLVER.CHECKPOINT_PERIOD = 20  # epochs between two kept checkpoints, model_NNNN.pth
_C.SOLVER.CHECKPOINT_ITERS = 0  # iterations between two writings of model_latest.pth; 0 = none
_C.SOLVER.LOG_PERIOD = 50  # iterations between two lines on the console
_C.SOLVER.CLIP_GRADIENTS = CN()
_C.SOLVER.CLIP_GRADIENTS.ENABLED = True
_C.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"  # norm (of all gradients together), value
_C.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 5.0
_C.SOLVER.CLIP_GRADIENTS.NORM_TYPE = 2.0
_C.SOLVER.AMP = CN()
_C.SOLVER.AMP.ENABLED = True  # mixed precision on CUDA; the CPU computes in float32
_C.SOLVER.AMP.DTYPE = "bf16"  # bf16, fp16 (with loss scaling)
_C.SOLVER.AMP.MAX_SKIPPED = 20  # fp16: steps skipped in a row for non-finite gradients before the run stops

# ----------------------------------------------------------------------------------------------------- test
_C.TEST = CN()
_C.TEST.EVAL_PERIOD = 20  # epochs; 0 = only at the end
_C.TEST.IMS_PER_BATCH = 128
_C.TEST.METRIC = "cosine"  # cosine, euclidean, jaccard
_C.TEST.SAVE_RANKS = False  # write per-query AP, first hit and top-k gallery indices beside results.json
_C.TEST.AMP = CN()
_C.TEST.AMP.ENABLED = False  # mixed precision in evaluation, on CUDA only
_C.TEST.AMP.DTYPE = "bf16"  # bf16, fp16
_C.TEST.FLIP = CN()
_C.TEST.FLIP.ENABLED = False  # average the features of the image and its mirror image
_C.TEST.AQE = CN()
_C.TEST.AQE.ENABLED = False  # average query expansion
_C.TEST.AQE.ALPHA = 3.0
_C.TEST.AQE.QE_TIME = 1
_C.TEST.AQE.QE_K = 5
_C.TEST.RERANK = CN()
_C.TEST.RERANK.ENABLED = False  # k-reciprocal re-ranking
_C.TEST.RERANK.K1 = 20
_C.TEST.RERANK.K2 = 6
_C.TEST.RERANK.LAMBDA = 0.3
_C.TEST.ROC = CN()
_C.TEST.ROC.ENABLED = False  # TPR at FPR 1e-4, 1e-3, 1e-2
_C.TEST.PRECISE_BN = CN()
_C.TEST.PRECISE_BN.ENABLED = False  # recompute BatchNorm statistics before evaluation
_C.TEST.PRECISE_BN.NUM_ITER = 300
_C.TEST.SDMODEL = CN()
_C.TEST.SDMODEL.PREDICTION = "sample"  # the paper's sampler; mean = one-call prediction of the clean latent
_C.TEST.SDMODEL.NUM_INFERENCE_STEPS = 5
_C.TEST.SDMODEL.FULL_GUIDANCE_SCALE = 2.0
_C.TEST.SDMODEL.FUSION = "concat"  # weighted: parts of length 1, the generated ones times VIEW_WEIGHT
_C.TEST.SDMODEL.VIEW_WEIGHT = 1.0  # of FUSION weighted
_C.TEST.SDMODEL.GENERATED_NECK = (
    False  # generated features pass the identity head's neck, as the person's does
)
_C.TEST.SDMODEL.NOISE = (
    "common"  # common: one noise sequence per view for all images; per_image: by file name
)

# --------------------------------------------------------------------------------------------------- output
_C.OUTPUT_DIR = "logs/run"
_C.CUDNN_BENCHMARK = False  # faster convolutions on CUDA, chosen anew by every run; False: deterministic ones


def get_cfg() -> CN:
    """A fresh, mutable copy of the defaults."""
    return _C.clone()
