"""SeCap's decoder: prompts are re-calibrated for the image, and refine a local feature of its patches.

Shapes: B images, N patches, P prompts, width D. The refinement is a two-way transformer as in the mask
decoder of "Segment Anything" (Kirillov et al., ICCV 2023, app. A): prompts are their own position embeddings.
"""

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

MLP_RATIO = 4


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another.

    Args:
        width: D.
        num_heads: must divide `inner_width`.
        inner_width: of queries, keys and values, those of all heads together.

    Raises:
        ValueError: if the heads do not divide the inner width.
    """

    def __init__(self, width: int, num_heads: int, inner_width: int) -> None:
        super().__init__()
        if inner_width % num_heads:
            raise ValueError(f"{num_heads} heads do not divide a width of {inner_width}")
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, inner_width)
        self.k_proj = nn.Linear(width, inner_width)
        self.v_proj = nn.Linear(width, inner_width)
        self.out_proj = nn.Linear(inner_width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Map queries (B, Q, D), keys and values (B, K, D) to (B, Q, D)."""
        projected = (self.q_proj(queries), self.k_proj(keys), self.v_proj(values))
        heads = (tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for tokens in projected)
        return self.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class AttentionBlock(nn.Module):
    """Cross-attention, self-attention and an MLP; each is added to its input, then normalised.

    Args:
        width, num_heads: as in `CrossAttention`.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.cross_attn = CrossAttention(width, num_heads, width)
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, MLP_RATIO * width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Map queries (B, Q, D), keys and values (B, K, D) to (B, Q, D)."""
        queries = self.norm1(queries + self.cross_attn(queries, keys, values))
        queries = self.norm2(queries + self.attn(queries))
        return self.norm3(queries + self.mlp(queries))


class TwoWayBlock(nn.Module):
    """Prompts attend to each other and to the patches, then the patches attend to the prompts.

    Args:
        width: D, even; attention is half as wide.
        num_heads: must divide half the width.
        first: the block that the prompts enter as nothing but position embeddings: these are not added before
            they attend to each other, and the result replaces them.
    """

    def __init__(self, width: int, num_heads: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(width, num_heads, width // 2)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = CrossAttention(width, num_heads, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, MLP_RATIO * width)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = CrossAttention(width, num_heads, width // 2)
        self.norm4 = nn.LayerNorm(width)

    def forward(
        self, prompts: Tensor, patches: Tensor, prompt_positions: Tensor, patch_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map prompts (B, P, D) and patches (B, N, D), with position embeddings of either, to new ones."""
        if self.first:
            prompts = self.self_attn(prompts, prompts, prompts)
        else:
            placed = prompts + prompt_positions
            prompts = prompts + self.self_attn(placed, placed, prompts)
        prompts = self.norm1(prompts)
        placed_patches = patches + patch_positions
        attended = self.cross_attn_token_to_image(prompts + prompt_positions, placed_patches, patches)
        prompts = self.norm2(prompts + attended)
        prompts = self.norm3(prompts + self.mlp(prompts))
        attended = self.cross_attn_image_to_token(placed_patches, prompts + prompt_positions, prompts)
        return prompts, self.norm4(patches + attended)


class LocalFeatureRefinement(nn.Module):
    """The local feature refinement module (LFRM): two-way blocks, and a block that changes prompts alone.

    Args:
        width, num_heads: as in `TwoWayBlock`.
        depth: two-way blocks.
    """

    def __init__(self, width: int, num_heads: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, num_heads, index == 0) for index in range(depth))
        self.final = AttentionBlock(width, num_heads)
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, prompts: Tensor, patches: Tensor, patch_positions: Tensor) -> Tensor:
        """Map prompts (B, P, D) and patches (B, N, D) with their position embeddings to prompts (B, P, D)."""
        refined = prompts
        for layer in self.layers:
            refined, patches = layer(refined, patches, prompts, patch_positions)
        last = self.final(refined + prompts, patches + patch_positions, patches)
        return self.norm(refined + last)


class PromptDecoder(nn.Module):
    """Learned prompts, the prompt re-calibration module (PRM) and the local feature refinement module.

    An out token goes through the refinement in front of the prompts; what becomes of it is the local feature.

    Args:
        width, num_heads, depth: as in `LocalFeatureRefinement`.
        num_patches: N.
        num_prompts: P.
        recalibrates: have the re-calibration; without it all images have the same prompts.
    """

    def __init__(
        self, width: int, num_heads: int, num_patches: int, num_prompts: int, depth: int, recalibrates: bool
    ) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(1, num_prompts, width))
        self.out_token = nn.Parameter(torch.empty(1, width))
        self.patch_positions = nn.Parameter(torch.empty(1, num_patches, width))
        for parameter in (self.prompts, self.out_token, self.patch_positions):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.recalibration = AttentionBlock(width, num_heads) if recalibrates else None
        self.refinement = LocalFeatureRefinement(width, num_heads, depth)

    def recalibrated(self, person: Tensor) -> Tensor:
        """Return the prompts (B, P, D) for images whose features are `person` (B, D)."""
        batch = person.shape[0]
        prompts = self.prompts.expand(batch, -1, -1)
        if self.recalibration is None:
            return prompts
        # The only key, so that attention adds the same projection of the feature to each of the prompts.
        memory = person[:, None]
        return self.recalibration(prompts, memory, memory)

    def forward(self, person: Tensor, patches: Tensor) -> Tensor:
        """Map features (B, D) and patch tokens (B, N, D) of the images to local features (B, D)."""
        out = self.out_token.expand(person.shape[0], 1, -1)
        prompts = torch.cat([out, self.recalibrated(person)], dim=1)
        return self.refinement(prompts, patches, self.patch_positions)[:, 0]
