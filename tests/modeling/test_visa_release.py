"""Checkpoints of ViSA's authors: a file with their names and shapes, against their forward written out."""

import math

import pytest
import torch
import torch.nn.functional as F

DIM, HEADS, BLOCKS, PATCHES, CLASSES = 128, 4, 3, 8, 6
EXPERTS, PROMPTS, TOP_K, GRAPH_TOP_K = 4, 3, 2, 5
YAML = f"""
MODEL:
  META_ARCHITECTURE: Baseline_multiview_ViSA
  USE_VISA: True
  BACKBONE: {{NAME: build_multiview_vit_backbone_ViSA, DEPTH: custom, FEAT_DIM: {DIM}, NUM_LAYERS: {BLOCKS},
             NUM_HEADS: {HEADS}, INNER_SUB: True, PROMPT_LEN: 16, PROMPT_DEPTH: 2, USE_PRM: True, EXPERTS: 8,
             TOP_K: {TOP_K}, GRAPH_TOP_K: {GRAPH_TOP_K}}}
INPUT: {{SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32]}}
"""


def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> dict[str, tuple]:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str) -> dict[str, tuple]:
    return {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}


def attention(name: str, bias: bool) -> dict[str, tuple]:
    return linear(f"{name}.qkv", DIM, 3 * DIM, bias) | linear(f"{name}.proj", DIM, DIM)


def mlp(name: str, ratio: int) -> dict[str, tuple]:
    return linear(f"{name}.fc1", DIM, ratio * DIM) | linear(f"{name}.fc2", ratio * DIM, DIM)


def vit_block(name: str) -> dict[str, tuple]:
    own = norm(f"{name}.norm1") | attention(f"{name}.attn", True)
    return own | norm(f"{name}.norm2") | mlp(f"{name}.mlp", 4)


def expert(name: str) -> dict[str, tuple]:
    own = {f"{name}.prompt": (1, PROMPTS, DIM)}
    for projection in "q_proj", "k_proj", "v_proj", "out_proj":
        own |= linear(f"{name}.prm.cross_attn.{projection}", DIM, DIM)
    for number in 1, 2, 3:
        own |= norm(f"{name}.prm.norm{number}")
    return own | attention(f"{name}.prm.attn", False) | mlp(f"{name}.prm.mlp", 2)


def head(name: str, classes: int) -> dict[str, tuple]:
    neck = {
        f"{name}.bottleneck.0.{kind}": (DIM,) for kind in ("weight", "bias", "running_mean", "running_var")
    }
    return neck | {f"{name}.bottleneck.0.num_batches_tracked": (), f"{name}.weight": (classes, DIM)}


def their_shapes() -> dict[str, tuple]:
    """The names and shapes of their state dict."""
    base, shapes = "backbone.base", {}
    for token in "cls_token", "view_token_sky", "view_token_ground":
        shapes[f"{base}.{token}"] = (1, 1, DIM)
    shapes |= {f"{base}.pos_embed": (1, 2 + PATCHES, DIM), f"{base}.patch_embed.proj.bias": (DIM,)}
    shapes |= {f"{base}.patch_embed.proj.weight": (DIM, 3, 16, 16)} | norm(f"{base}.norm")
    for number in range(BLOCKS):
        shapes |= vit_block(f"{base}.blocks.{number}")
    shapes |= vit_block("backbone.b1.0") | norm("backbone.b1.1")
    shapes |= {"backbone.image_pe": (1, PATCHES, DIM), "backbone.out_token": (1, DIM)}
    for group in "share", "sky", "ground":
        shapes |= linear(f"backbone.{group}_router.gate", DIM, EXPERTS)
        for number in range(EXPERTS):
            shapes |= expert(f"backbone.{group}_experts.{number}")
    for branch in "share", "view":
        shapes |= {f"backbone.{branch}_gcn.gcn_weights": (DIM, DIM)} | norm(f"backbone.norm_{branch}")
    final = "backbone.final_attn_token_to_image"
    shapes |= attention(f"{final}.attn", False) | norm(f"{final}.norm2") | mlp(f"{final}.mlp", 4)
    shapes |= norm(f"{final}.norm3") | head("heads", CLASSES) | head("local_heads", CLASSES)
    return shapes | head("view_heads", 2)


@pytest.fixture
def theirs() -> dict[str, torch.Tensor]:
    """A state dict of theirs, at random."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.1 * torch.randn(shape, generator=generator) + ("norm" in name and name.endswith("weight"))
        for name, shape in their_shapes().items()
    }
    for name in state:
        if name.endswith("running_var"):
            state[name] = state[name].abs() + 0.5
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
    return state


class TheirForward:
    """Their evaluation of one image at a time, from the tensors of their state dict."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def linear(self, tokens, name):
        return F.linear(tokens, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, tokens, name, eps=1e-5):
        return F.layer_norm(tokens, (DIM,), self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def mlp(self, tokens, name):
        return self.linear(F.gelu(self.linear(tokens, f"{name}.fc1")), f"{name}.fc2")

    def heads(self, query, key, value):
        joined = []
        for own in torch.arange(DIM).chunk(HEADS):
            weights = (query[:, own] @ key[:, own].T / math.sqrt(len(own))).softmax(dim=1)
            joined.append(weights @ value[:, own])
        return torch.cat(joined, dim=1)

    def attention(self, tokens, name):
        return self.linear(self.heads(*self.linear(tokens, f"{name}.qkv").chunk(3, dim=1)), f"{name}.proj")

    def block(self, tokens, name):
        tokens = tokens + self.attention(self.norm(tokens, f"{name}.norm1", 1e-6), f"{name}.attn")
        return tokens + self.mlp(self.norm(tokens, f"{name}.norm2", 1e-6), f"{name}.mlp")

    def expert(self, token, name):
        """Prompts that attend to the token, by all four projections."""
        prompt, cross = self.state[f"{name}.prompt"][0], f"{name}.prm.cross_attn"
        query = self.linear(prompt, f"{cross}.q_proj")
        key, value = (self.linear(token[None], f"{cross}.{part}_proj") for part in "kv")
        prompt = prompt + self.linear(self.heads(query, key, value), f"{cross}.out_proj")
        prompt = self.norm(prompt, f"{name}.prm.norm1")
        prompt = self.norm(prompt + self.attention(prompt, f"{name}.prm.attn"), f"{name}.prm.norm2")
        return self.norm(prompt + self.mlp(prompt, f"{name}.prm.mlp"), f"{name}.prm.norm3")

    def experts(self, token, group):
        best = self.linear(token, f"backbone.{group}_router.gate").topk(TOP_K)
        weights = best.values.softmax(dim=0)
        names = [f"backbone.{group}_experts.{number}" for number in best.indices.tolist()]
        return sum(weight * self.expert(token, name) for weight, name in zip(weights, names, strict=True))

    def graphs(self, queries, token, patches, normed):
        cosines = F.normalize(patches, dim=1) @ F.normalize(token, dim=0)
        regions = patches[cosines.topk(GRAPH_TOP_K).indices]
        result = []
        for query in queries:
            nodes = torch.cat([query[None], regions])
            adjacency = (F.normalize(nodes, dim=1) @ F.normalize(nodes, dim=1).T).clamp(min=0)
            adjacency = adjacency + torch.eye(len(nodes))
            scale = torch.diag(adjacency.sum(dim=1) ** -0.5)
            added = torch.tanh(
                scale @ adjacency @ scale @ nodes @ self.state["backbone.share_gcn.gcn_weights"]
            )
            result.append(self.norm(added[0], normed) + query)
        return torch.stack(result)

    def neck(self, feature, name):
        tensors = (self.state[f"{name}.bottleneck.0.{kind}"] for kind in ("running_mean", "running_var"))
        scale = self.state[f"{name}.bottleneck.0.weight"]
        return F.batch_norm(feature[None], *tensors, scale, self.state[f"{name}.bottleneck.0.bias"])[0]

    def feature(self, image, view):
        base = "backbone.base"
        kernel = [self.state[f"{base}.patch_embed.proj.{kind}"] for kind in ("weight", "bias")]
        patches = F.conv2d((image[None].float() - 127.5) / 127.5, *kernel, stride=16)[0].flatten(1).T
        token = self.state[f"{base}.view_token_{('sky', 'ground')[view]}"][0]
        tokens = torch.cat([self.state[f"{base}.cls_token"][0], token, patches])
        tokens = tokens + self.state[f"{base}.pos_embed"][0]
        for number in range(BLOCKS - 1):
            tokens = self.block(tokens, f"{base}.blocks.{number}")
            tokens = torch.cat([tokens[:1] - tokens[1:2], tokens[1:]])
        last = self.norm(self.block(tokens, "backbone.b1.0"), "backbone.b1.1", 1e-6)
        person, of_view = last[0] - last[1], last[1]
        shared, own = self.experts(person, "share"), self.experts(of_view, ("sky", "ground")[view])
        shared = self.graphs(shared, person, tokens[2:], "backbone.norm_share")
        own = self.graphs(own, of_view, tokens[2:], "backbone.norm_view")
        final, joined = "backbone.final_attn_token_to_image", torch.cat([shared, own])
        joined = torch.cat([self.state["backbone.out_token"], joined])
        joined = self.norm(joined + self.attention(joined, f"{final}.attn"), f"{final}.norm2")
        joined = self.norm(joined + self.mlp(joined, f"{final}.mlp"), f"{final}.norm3")
        return torch.cat([self.neck(person, "heads"), self.neck(joined[0], "local_heads")])


def test_a_converted_file_gives_the_features_of_their_forward(
    theirs, make_batch, convert_checkpoint, converted
):
    saved = {f"module.{name}": tensor for name, tensor in theirs.items()}
    code, printed = convert_checkpoint({"model": saved}, YAML, "MODEL.DEVICE", "cpu")
    assert code == 0, printed
    assert "unknown" not in printed
    assert "MODEL.BACKBONE.EXPERTS: 4, as the weights have it (the config: 8)" in printed
    assert "MODEL.BACKBONE.PROMPT_LEN: 3, as the weights have it (the config: 16)" in printed
    model, batch = converted(), make_batch()
    forward = TheirForward(theirs)
    pairs = zip(batch["images"], batch["viewids"].tolist(), strict=True)
    expected = torch.stack([forward.feature(image, view) for image, view in pairs])
    torch.testing.assert_close(model(batch), expected, atol=1e-4, rtol=1e-4)
    rows = theirs["view_heads.weight"]  # they count the ground as view 0 there
    assert torch.equal(model.view_heads.weight, torch.stack([rows[1], rows[0]]))


def test_every_dropped_tensor_is_named_with_the_reason(theirs, convert_checkpoint):
    _, printed = convert_checkpoint({"model": theirs}, YAML, "MODEL.DEVICE", "cpu")
    dropped = [line.split(maxsplit=2) for line in printed.splitlines() if line.startswith("dropped")]
    reasons = {name: rest for _, name, rest in dropped}
    assert set(reasons) == {
        "backbone.base.*", "backbone.image_pe", "backbone.view_gcn.*",
        "backbone.share_experts.*", "backbone.sky_experts.*", "backbone.ground_experts.*",
    }  # fmt: skip
    assert "attention to one token is that token's value" in reasons["backbone.sky_experts.*"]
    assert "14" in reasons["backbone.base.*"]  # the last block and the norm, of which there are copies


@pytest.mark.parametrize("lacking", ["backbone.share_gcn.gcn_weights", "backbone.base.view_token_sky"])
def test_a_file_that_lacks_a_part_is_refused(theirs, convert_checkpoint, lacking):
    del theirs[lacking]
    code, printed = convert_checkpoint({"model": theirs}, YAML, "MODEL.DEVICE", "cpu")
    assert code == 2
    assert "the file lacks" in printed
