"""SD-ReID's Stage 2 as the code of the reference release computes it, which is not as the paper describes."""

from typing import Any

from torch import nn

from fastreid.config import CfgNode
from fastreid.config.files import flat_keys
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.sdreid.stage2 import SDReIDStage2
from fastreid.structures import DataNames
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once

# Ours alone, at the values at which we compute what the release does.
FIXED: dict[str, Any] = {
    "MODEL.BACKBONE.PART_TOKENS": 0,
    "MODEL.SDMODEL.TARGET": "same_image",
    "MODEL.SDMODEL.PREDICTION_TYPE": "epsilon",
    "MODEL.SDMODEL.VIEW_MAP": "instance",
    "MODEL.SDMODEL.TOKEN_DROPOUT": 0.0,
    "MODEL.SDMODEL.TOKEN_MIXING": 0.0,
    "MODEL.SDMODEL.VIEW_SEPARATION": 0.0,
    "MODEL.SDMODEL.STANDARDIZE_LATENT": False,
    "MODEL.SDMODEL.STANDARDIZE_TOKENS": False,
    "MODEL.SDMODEL.CACHE_FEATURES": False,  # drop path encodes an image differently every time
    "MODEL.SDMODEL.SCHEDULER_CONFIG.NAME": "ddpm",  # others add noise by their own rules there
    "MODEL.SDMODEL.SCHEDULER_CONFIG.TIMESTEP_POWER": 1.0,
    "MODEL.SDMODEL.VRD_CONFIG.PYRAMIDS": ["encoder", "decoder"],
    "TEST.SDMODEL.PREDICTION": "sample",
    "TEST.SDMODEL.NOISE": "common",
    "TEST.SDMODEL.FUSION": "concat",
    "TEST.SDMODEL.GENERATED_NECK": False,
    "TEST.SDMODEL.REAL_OWN_VIEW": False,
}


@META_ARCH_REGISTRY.register()
class SDReIDStage2AsReleased(SDReIDStage2):
    """`SDReIDStage2` with the same parameters, trained and run as the release's Stage 2 is.

    It generates views 0 and 1 alone, in training the frozen encoder's drop path acts, and the rest is in
    `AsReleasedGenerator`. docs/reference_release.md lists the differences.
    """

    batch_dependent = True

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        super().check_config(cfg, training)
        values = flat_keys(cfg)
        for key, value in FIXED.items():
            if values[key] != value:
                raise UserError(
                    f"{key} is {values[key]}; {cls.__name__} computes what the release's code does, which has"
                    f" {value} alone",
                    f"set it to {value}, or MODEL.META_ARCHITECTURE to SDReIDStage2",
                )

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        self.generates_in_amp = False  # the release evaluates in float32
        warn_once(
            __name__,
            f"{type(self).__name__} computes what the release's code does, not what the paper describes:"
            " conditions attend across the batch, the UNet's decoder gets no residuals and its encoder fewer"
            " at every step, guidance has a context of zeros, two views are generated, drop path acts in"
            " training, and noise comes in batch order (docs/reference_release.md)",
        )

    def build_generator(self, cfg: CfgNode) -> nn.Module:
        from fastreid.modeling.meta_arch.sdreid.as_released_generator import AsReleasedGenerator

        return AsReleasedGenerator.from_config(cfg, self.backbone.feat_dim, self.backbone.num_id_tokens)

    def train(self, mode: bool = True) -> "SDReIDStage2AsReleased":
        """Set the mode of the generator and of the backbone, which is frozen all the same."""
        super().train(mode)
        self.backbone.train(mode)
        return self

    def view_parts(self) -> list[str]:
        return super().view_parts()[:2]

    def on_evaluation_start(self) -> None:
        """Let the noise begin anew, so that an evaluation does not depend on those before it."""
        self.generator.restart_noise()
