"""Methods: whole models, from a batch to losses or features. `base` is their contract."""

from fastreid.modeling.meta_arch.base import MetaArch, ParameterRules
from fastreid.modeling.meta_arch.baselines import BoT, ViTBaseline
from fastreid.modeling.meta_arch.build import (
    META_ARCH_REGISTRY,
    build_meta_model,
    build_model,
    check_assets,
    fit_config,
    method_of,
)
from fastreid.modeling.meta_arch.sdreid import SDReIDStage1, SDReIDStage2
from fastreid.modeling.meta_arch.secap import SeCap
from fastreid.modeling.meta_arch.transreid import TransReID
from fastreid.modeling.meta_arch.vdt import VDT
from fastreid.modeling.meta_arch.visa import ViSA
