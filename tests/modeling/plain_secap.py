"""SeCap's forward written out for one image, from tensors by name: the oracle of its tests.

Sequences are (tokens, width); a name without its last part is that of a layer or block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def linear(state: State, name: str, tokens: Tensor) -> Tensor:
    product = tokens @ state[f"{name}.weight"].T
    return product + state[f"{name}.bias"] if f"{name}.bias" in state else product


def norm(state: State, name: str, tokens: Tensor, eps: float = 1e-5) -> Tensor:
    centred = tokens - tokens.mean(dim=1, keepdim=True)
    deviation = (centred.square().mean(dim=1, keepdim=True) + eps).sqrt()
    return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def mlp(state: State, name: str, tokens: Tensor) -> Tensor:
    return linear(state, f"{name}.fc2", F.gelu(linear(state, f"{name}.fc1", tokens)))


def by_head(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Softmax attention, a head and a query at a time."""
    width, rows = queries.shape[1] // heads, []
    for query in queries:
        parts = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            weights = torch.softmax(keys[:, own] @ query[own] / width**0.5, dim=0)
            parts.append(weights @ values[:, own])
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def cross(state: State, name: str, queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    given = {"q": queries, "k": keys, "v": values}
    projected = (linear(state, f"{name}.{letter}_proj", tokens) for letter, tokens in given.items())
    return linear(state, f"{name}.out_proj", by_head(*projected, heads))


def among(state: State, name: str, tokens: Tensor, heads: int) -> Tensor:
    """Self-attention as a ViT has it."""
    projected = linear(state, f"{name}.qkv", tokens).chunk(3, dim=1)
    return linear(state, f"{name}.proj", by_head(*projected, heads))


def vit_block(state: State, name: str, tokens: Tensor, heads: int) -> Tensor:
    tokens = tokens + among(state, f"{name}.attn", norm(state, f"{name}.norm1", tokens, 1e-6), heads)
    return tokens + mlp(state, f"{name}.mlp", norm(state, f"{name}.norm2", tokens, 1e-6))


def attention_block(
    state: State, name: str, queries: Tensor, keys: Tensor, values: Tensor, heads: int
) -> Tensor:
    """The re-calibration, and the end of the refinement."""
    attended = cross(state, f"{name}.cross_attn", queries, keys, values, heads)
    queries = norm(state, f"{name}.norm1", queries + attended)
    queries = norm(state, f"{name}.norm2", queries + among(state, f"{name}.attn", queries, heads))
    return norm(state, f"{name}.norm3", queries + mlp(state, f"{name}.mlp", queries))


def two_way_block(
    state: State, name: str, prompts: Tensor, patches: Tensor, given: Tensor, places: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """A block of the refinement; `given` are the prompts that went in, `places` the patches' positions."""
    if name.endswith(".0"):
        prompts = cross(state, f"{name}.self_attn", prompts, prompts, prompts, heads)
    else:
        placed = prompts + given
        prompts = prompts + cross(state, f"{name}.self_attn", placed, placed, prompts, heads)
    prompts = norm(state, f"{name}.norm1", prompts)
    to_image = f"{name}.cross_attn_token_to_image"
    seen = cross(state, to_image, prompts + given, patches + places, patches, heads)
    prompts = norm(state, f"{name}.norm2", prompts + seen)
    prompts = norm(state, f"{name}.norm3", prompts + mlp(state, f"{name}.mlp", prompts))
    to_token = f"{name}.cross_attn_image_to_token"
    seen = cross(state, to_token, patches + places, prompts + given, prompts, heads)
    return prompts, norm(state, f"{name}.norm4", patches + seen)


def refined(
    state: State, names: dict[str, str], given: Tensor, patches: Tensor, places: Tensor, heads: int
) -> Tensor:
    """The out token after the refinement; `names` of its layers, of its final block and its norm."""
    prompts = given
    for layer in range(2):
        name = f"{names['layers']}.{layer}"
        prompts, patches = two_way_block(state, name, prompts, patches, given, places, heads)
    last = attention_block(state, names["final"], prompts + given, patches + places, patches, heads)
    return norm(state, names["norm"], prompts + last)[0]
