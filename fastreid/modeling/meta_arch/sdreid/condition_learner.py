"""Identity tokens and a view prototype become the cross-attention context (SD-ReID, Stage 2)."""

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPEncoder

from fastreid.utils.errors import UserError


class ConditionLearner(nn.Module):
    """A small transformer over L tokens, with a learned *null context* for classifier-free guidance.

    Args:
        dim: token width D.
        num_tokens: L, the identity tokens and the view prototype together.
        depth: transformer layers.
        heads: attention heads; must divide `dim`.
        standardize: remove each identity token's mean and standard deviation over the training set, which
            :meth:`fit` sets. In the residual stream that the tokens come from, what all images have in common
            is several times as long as what tells them apart.
    """

    def __init__(self, dim: int, num_tokens: int, depth: int, heads: int, standardize: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise UserError(
                f"MODEL.SDMODEL.CON_LEARNER_CONFIG.HEADS {heads} does not divide"
                f" MODEL.BACKBONE.FEAT_DIM {dim}"
            )
        config = CLIPTextConfig(
            hidden_size=dim,
            intermediate_size=4 * dim,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            attn_implementation="sdpa",
        )
        self.dim = dim
        self.transformer = CLIPEncoder(config)
        self._initialise()
        self.standardize = standardize
        if standardize:
            self.register_buffer("token_mean", torch.zeros(num_tokens - 1, dim))
            self.register_buffer("token_std", torch.ones(num_tokens - 1, dim))
        self.null_context = nn.Parameter(torch.randn(1, num_tokens, dim))

    def _initialise(self) -> None:
        """Start the attention as ``torch.nn.MultiheadAttention`` does."""
        for layer in self.transformer.layers:
            attention = layer.self_attn
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                # uniform Xavier values of the three as one matrix (3D, D)
                nn.init.xavier_uniform_(projection.weight, gain=0.5**0.5)
                nn.init.zeros_(projection.bias)
            nn.init.zeros_(attention.out_proj.bias)

    def forward(self, id_tokens: Tensor, prototypes: Tensor) -> Tensor:
        """Return the context of each image under one view.

        Args:
            id_tokens: (B, L-1, D).
            prototypes: (B, D) the prototype of the view asked for.

        Returns:
            (B, L, D)
        """
        return self.attend(torch.cat([self.standardized(id_tokens), prototypes[:, None]], dim=1))

    def attend(self, tokens: Tensor) -> Tensor:
        """Pass tokens (B, L, D) through the transformer, in which those of an image attend to each other."""
        return self.transformer(inputs_embeds=tokens).last_hidden_state

    def standardized(self, id_tokens: Tensor) -> Tensor:
        """Return identity tokens (B, L-1, D) as the transformer sees them."""
        return (id_tokens - self.token_mean) / self.token_std if self.standardize else id_tokens

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics (L-1, D) that a standardising learner removes."""
        self.token_mean.copy_(mean)
        self.token_std.copy_(std.clamp(min=1e-6))

    def drop(self, context: Tensor, probability: float) -> Tensor:
        """Replace the context of a random share of the samples by the null context (training)."""
        dropped = torch.rand(len(context), 1, 1, device=context.device) < probability
        return torch.where(dropped, self.null_context.to(context.dtype), context)
