"""The common part of SD-ReID's stages: encoder with heads, memory bank, keys and tables."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.heads import build_head
from fastreid.modeling.meta_arch.base import MetaArch, ParameterRules
from fastreid.modeling.meta_arch.sdreid.config import KEYS, check_cached_features, check_rules
from fastreid.modeling.meta_arch.sdreid.memory_bank import MemoryBank
from fastreid.modeling.meta_arch.sdreid.release_checkpoint import SDReIDRelease
from fastreid.structures import Batch, DataNames, EncoderOutput, Table
from fastreid.utils.errors import UserError


class SDReIDEncoder(MetaArch):
    """A ViT with a view prompt, an identity head, a view head and a memory bank (arXiv 2504.09549)."""

    trains_encoder: ClassVar[bool]
    release = SDReIDRelease()

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        cfg.declare(KEYS)

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        check_rules(cfg)
        if training:
            check_cached_features(cfg, cls.trains_encoder)

    @classmethod
    def fit_to_data(cls, cfg: CfgNode, num_classes: int, views: Sequence[str]) -> None:
        super().fit_to_data(cfg, num_classes, views)
        settings = cfg.MODEL.SDMODEL
        if views and settings.VIEW_NUM not in (0, len(views)):
            raise UserError(
                f"MODEL.SDMODEL.VIEW_NUM is {settings.VIEW_NUM}, but the training data (DATASETS.NAMES"
                f" {list(cfg.DATASETS.NAMES)}) has {len(views)} views ({', '.join(views)})",
                f"set it to {len(views)}",
            )
        settings.VIEW_NUM = settings.VIEW_NUM or len(views)

    @classmethod
    def fit_to_weights(cls, cfg: CfgNode, state: dict[str, Tensor]) -> None:
        if not cfg.MODEL.SDMODEL.VIEW_NUM:
            prototypes = state.get("memory_bank.prototypes", (None, None))
            cfg.MODEL.SDMODEL.VIEW_NUM = len(prototypes)  # two where the weights lack them

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        if not hasattr(self.backbone, "num_id_tokens"):
            raise UserError(
                f"MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME} gives no view token and identity tokens, of"
                f" which {type(self).__name__} is made",
                "set it to build_vit_backbone",
            )
        settings, dim = cfg.MODEL.SDMODEL, self.backbone.feat_dim
        if not settings.VIEW_NUM:
            raise UserError(
                "MODEL.SDMODEL.VIEW_NUM is 0, and no data tells it", "set it to the number of views"
            )
        self.view_heads = build_head(cfg, dim, settings.VIEW_NUM)
        self.memory_bank = MemoryBank(settings.VIEW_NUM, dim, settings.MOMENTUM)

    def encode(self, batch: Batch) -> EncoderOutput:
        """Encode the images (B, 3, H, W)."""
        return self.backbone(self.pixels(batch))

    def view_names(self) -> list[str]:
        """Return the names of the V views, numbers where nobody knows them."""
        count = len(self.memory_bank.prototypes)
        return [
            *self.names.views[:count],
            *(f"view {number}" for number in range(len(self.names.views), count)),
        ]

    def parameter_rules(self) -> ParameterRules:
        return (
            super()
            .parameter_rules()
            ._replace(heads=("heads.", "view_heads."), training_only=("heads.weight", "view_heads."))
        )

    def report_tables(self, view_names: Sequence[str]) -> list[Table]:
        """Return the cosine similarities of the view prototypes."""
        directions = nn.functional.normalize(self.memory_bank.prototypes.float())
        names = [*view_names[: len(directions)], *self.view_names()[len(view_names) :]]
        return [
            Table(
                "prototypes",
                "View prototypes",
                "view",
                "view",
                names,
                names,
                (directions @ directions.T).cpu().tolist(),
                [[""] * len(names) for _ in names],
                (0, 1),
                decimals=3,
            )
        ]
