"""The plain way of Stage 1: timm's ViT with a linear classifier under autocast, and pictures read by PIL."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from fastreid.config import CfgNode
from fastreid.utils.env import autocast


def plain_vit(cfg: CfgNode, width: int, depth: int, heads: int, num_classes: int) -> VisionTransformer:
    """Make timm's ViT of the sizes of `cfg`, with a classifier."""
    return VisionTransformer(
        img_size=tuple(cfg.INPUT.SIZE_TRAIN),
        patch_size=cfg.MODEL.BACKBONE.PATCH_SIZE,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=num_classes,
        drop_path_rate=cfg.MODEL.BACKBONE.DROP_PATH_RATIO,
    )


def train_plainly(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict, steps: int, dtype: torch.dtype | None
) -> None:
    """Take steps of cross entropy on one batch, which comes from the CPU every time."""
    device = next(model.parameters()).device
    for _ in range(steps):
        images = batch["images"].to(device, non_blocking=True).float() / 127.5 - 1
        with autocast(dtype, device):
            scores = model(images)
            loss = nn.functional.cross_entropy(scores, batch["targets"].to(device, non_blocking=True))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


class PlainPictures(Dataset):
    """Pictures as uint8 (3, H, W), read and resized by PIL."""

    def __init__(self, paths: Sequence[str], size: tuple[int, int]) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        height, width = self.size
        image = Image.open(self.paths[index]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@torch.inference_mode()
def encode_plainly(model: VisionTransformer, loader: DataLoader, dtype: torch.dtype | None) -> Tensor:
    """Return the class tokens (N, D) float32 of the loader's pictures, on the CPU."""
    device = next(model.parameters()).device
    features = []
    for images in loader:
        with autocast(dtype, device):
            tokens = model.forward_features(images.to(device, non_blocking=True).float() / 127.5 - 1)
        features.append(tokens[:, 0].float().cpu())
    return torch.cat(features)
