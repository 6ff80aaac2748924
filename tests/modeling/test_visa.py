"""ViSA: each of its parts against plain computations, and without them the plain ViT."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_methods import NAMES, NO_VIEWS, PLAIN, check_is_the_plain_vit, small_vit_cfg

from fastreid.config import check_config, get_cfg
from fastreid.modeling import build_model, fit_config
from fastreid.modeling.meta_arch.visa.experts import ExpertMixture, QueryExpert, ViewExperts
from fastreid.modeling.meta_arch.visa.regions import Fusion, RegionGraph
from fastreid.utils.errors import UserError

NO_LOCAL = ("MODEL.USE_VISA", "False")
SIZES = {"width": 32, "num_heads": 4, "length": 3, "count": 4, "top_k": 2}


def small_cfg(method: str = "ViSA", *options):
    """4 experts that make 3 queries, of which 2 are chosen; graphs of 5 of the 8 patches."""
    if method != "ViSA":
        return small_vit_cfg(method, "build_plain_vit_backbone", *options)
    sizes = {"EXPERTS": 4, "PROMPT_LEN": 3, "TOP_K": 2, "GRAPH_TOP_K": 5}
    own = [text for key, value in sizes.items() for text in (f"MODEL.BACKBONE.{key}", str(value))]
    return small_vit_cfg(method, "build_view_tokens_vit_backbone", *own, *options)


@pytest.fixture
def visa(randomize):
    """`visa(views, "KEY", value, …)`: a small ViSA, all of it random."""

    def build(views: int = 2, *options):
        cfg = fit_config(small_cfg("ViSA", *options), 6, NAMES[views].views)
        model = build_model(cfg, NAMES[views])
        randomize(model)
        return model

    return build


def attended(layer, tokens):
    """Multi-head attention of (N, D) tokens to each other, head by head."""
    heads, width = layer.num_heads, tokens.shape[1] // layer.num_heads
    query, key, value = (tokens @ layer.qkv.weight.T).chunk(3, dim=1)
    joined = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        weights = (query[:, own] @ key[:, own].T / math.sqrt(width)).softmax(dim=1)
        joined.append(weights @ value[:, own])
    return layer.proj(torch.cat(joined, dim=1))


def queries_of(expert, token):
    """The queries (M, D) of one image's token (D,), with attention to that one token written out."""
    prompt, width = expert.prompt[0], token.shape[0]
    asked = F.linear(prompt, torch.randn(width, width))  # whatever asks, one key has all the attention
    weights = (asked @ torch.randn(width, width) @ token[:, None]).softmax(dim=1)
    queries = expert.norm1(prompt + expert.projection(weights @ expert.value(token[None])))
    queries = expert.norm2(queries + attended(expert.attn, queries))
    return expert.norm3(queries + expert.mlp.fc2(F.gelu(expert.mlp.fc1(queries))))


def mixed(mixture, token, top_k=2):
    """The queries of one image's token (D,) by the best experts alone, and the probabilities (E,)."""
    logits = mixture.gate.weight @ token + mixture.gate.bias
    best = sorted(range(len(logits)), key=lambda number: -logits[number])[:top_k]
    total = sum(math.exp(logits[number]) for number in best)
    parts = [math.exp(logits[n]) / total * queries_of(mixture.experts[n], token) for n in best]
    return sum(parts), logits.softmax(dim=0)


def imbalance_of(probabilities):
    """Of a list of (E,) probabilities."""
    mean = sum(probabilities) / len(probabilities)
    return len(mean) * sum(float(share) ** 2 for share in mean)


def joined(graph, queries, token, patches):
    """One image's queries (M, D) with what their graphs add, each graph as a whole."""
    cosines = [float(F.cosine_similarity(patch, token, dim=0)) for patch in patches]
    best = sorted(range(len(patches)), key=lambda number: -cosines[number])[: graph.top_k]
    result = []
    for query in queries:
        nodes = torch.stack([query, *(patches[number] for number in best)])
        adjacency = torch.tensor(
            [[max(float(F.cosine_similarity(a, b, dim=0)), 0) for b in nodes] for a in nodes]
        )
        adjacency = adjacency + torch.eye(len(nodes))
        scaling = torch.diag(adjacency.sum(dim=1) ** -0.5)
        convolved = torch.tanh(scaling @ adjacency @ scaling @ nodes @ graph.convolution.weight.T)
        result.append(query + graph.norm(convolved[0]))
    return torch.stack(result)


def fused(fusion, tokens):
    """The feature (D,) of one image's tokens (N, D)."""
    tokens = torch.cat([fusion.token[0], tokens])
    tokens = fusion.norm1(tokens + attended(fusion.attn, tokens))
    return fusion.norm2(tokens + fusion.mlp.fc2(F.gelu(fusion.mlp.fc1(tokens))))[0]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_expert_is_prompts_that_attend_to_one_token_and_to_each_other():
    torch.manual_seed(0)
    expert, tokens = QueryExpert(32, 4, 3), torch.randn(5, 32)
    close(expert(tokens), torch.stack([queries_of(expert, token) for token in tokens]))


@pytest.mark.parametrize("top_k", [1, 2, 4])
@torch.no_grad()
def test_each_image_has_the_queries_of_the_experts_with_the_greatest_logits(top_k):
    torch.manual_seed(0)
    mixture, tokens = ExpertMixture(**SIZES | {"top_k": top_k}), torch.randn(6, 32)
    queries, imbalance = mixture(tokens, torch.ones(6, dtype=torch.bool))
    expected = [mixed(mixture, token, top_k) for token in tokens]
    close(queries, torch.stack([queries for queries, _ in expected]))
    assert float(imbalance) == pytest.approx(imbalance_of([p for _, p in expected]), rel=1e-5)


@torch.no_grad()
def test_each_view_has_experts_of_its_own_and_its_share_of_the_imbalance():
    torch.manual_seed(0)
    experts, tokens = ViewExperts(3, **SIZES), torch.randn(7, 32)
    views = [0, 2, 2, 0, 2, 0, 0]  # and none of the second
    queries, imbalance = experts(tokens, torch.tensor(views))
    expected = [mixed(experts.views[view], token) for view, token in zip(views, tokens, strict=True)]
    close(queries, torch.stack([queries for queries, _ in expected]))
    by_view = [[p for v, (_, p) in zip(views, expected, strict=True) if v == view] for view in set(views)]
    shares = [len(probabilities) / 7 * imbalance_of(probabilities) for probabilities in by_view]
    assert float(imbalance) == pytest.approx(sum(shares), rel=1e-5)


def test_experts_that_are_used_alike_are_in_balance():
    mixture = ExpertMixture(**SIZES)
    torch.nn.init.zeros_(mixture.gate.weight)
    torch.nn.init.zeros_(mixture.gate.bias)
    assert mixture(torch.randn(5, 32), torch.ones(5, dtype=torch.bool)).imbalance.item() == pytest.approx(1)


@torch.no_grad()
def test_a_graph_joins_each_query_with_the_patches_most_similar_to_the_token():
    torch.manual_seed(0)
    graph = RegionGraph(32, 5)
    queries, tokens, patches = torch.randn(4, 3, 32), torch.randn(4, 32), 3 * torch.randn(4, 9, 32)
    expected = [joined(graph, *image) for image in zip(queries, tokens, patches, strict=True)]
    close(graph(queries, tokens, patches), torch.stack(expected))


def test_no_gradient_flows_into_a_graphs_nodes():
    graph = RegionGraph(32, 5)
    queries, token, patches = torch.randn(2, 3, 32), torch.randn(2, 32), torch.randn(2, 9, 32)
    for tensor in (queries, token, patches):
        tensor.requires_grad_()
    graph(queries, token, patches).sum().backward()
    assert token.grad is None
    assert patches.grad is None
    assert torch.equal(queries.grad, torch.ones_like(queries))
    assert graph.convolution.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_fused_feature_is_that_of_a_token_beside_all_queries():
    torch.manual_seed(0)
    fusion, tokens = Fusion(32, 4), torch.randn(3, 6, 32)
    close(fusion(tokens), torch.stack([fused(fusion, image) for image in tokens]))


@pytest.mark.parametrize(("views", "told_apart"), [(2, 0), (3, 0), (3, 2)])
@torch.no_grad()
def test_the_whole_is_the_persons_feature_and_that_of_its_regions(visa, make_batch, views, told_apart):
    model, batch = visa(views, "MODEL.BACKBONE.VIEW_NUM", str(told_apart)).eval(), make_batch(views)
    vit, branch = model.backbone, model.local_branch
    patches = vit.patch_embed((batch["images"].float() - 127.5) / 127.5)
    assert len(vit.view_token) == len(branch.view_experts.views) == (told_apart or views)
    persons, locals_ = [], []
    for image, number in zip(patches, batch["viewids"].tolist(), strict=True):
        view = min(number, (told_apart or views) - 1)
        tokens = torch.stack([vit.cls_token[0, 0], vit.view_token[view, 0], *image]) + vit.pos_embed[0]
        for block in vit.blocks[:-1]:
            tokens = block(tokens[None])[0]
            tokens = torch.stack([tokens[0] - tokens[1], *tokens[1:]])
        last = vit.norm(vit.blocks[-1](tokens[None])[0])
        person, of_view = last[0] - last[1], last[1]
        shared = joined(branch.shared_graph, mixed(branch.shared_experts, person)[0], person, tokens[2:])
        own = mixed(branch.view_experts.views[view], of_view)[0]
        own = joined(branch.view_graph, own, of_view, tokens[2:])
        persons.append(person)
        locals_.append(fused(branch.fusion, torch.cat([shared, own])))
    person, local = torch.stack(persons), torch.stack(locals_)
    encoded = model.encode(batch)
    close(encoded.features, person)
    close(encoded.local_features, local)
    parts = {"person": model.heads(person), "local": model.local_heads(local)}
    close(model(batch), torch.cat([parts["person"], parts["local"]], dim=1))
    close(model(batch, ["local"]), parts["local"])
    assert model.feature_parts() == {"person": 128, "local": 128}


@pytest.mark.parametrize("inner", ["True", "False"])
@torch.no_grad()
def test_the_view_token_is_subtracted_within_the_blocks_if_that_is_on(visa, make_batch, inner):
    model, batch = visa(2, "MODEL.BACKBONE.INNER_SUB", inner, *NO_LOCAL).eval(), make_batch()
    vit = model.backbone
    prefix = torch.cat([vit.cls_token.expand(12, -1, -1), vit.view_token[batch["viewids"]]], dim=1)
    patches = vit.patch_embed((batch["images"].float() - 127.5) / 127.5)
    tokens = torch.cat([prefix, patches], dim=1) + vit.pos_embed
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
        if inner == "True":
            tokens[:, 0] -= tokens[:, 1]
    last = vit.norm(vit.blocks[-1](tokens))
    close(model.encode(batch).features, last[:, 0] - last[:, 1])


def test_the_local_feature_has_the_identity_losses_too_and_the_experts_a_balance(visa, make_batch):
    model, batch = visa(2, "MODEL.LOSSES.CE.VIEW_LAMBDA", "0.5", "MODEL.LOSSES.BALANCE", "0.3"), make_batch()
    encoded, losses = model.encode(batch), model(batch)
    identity = {"loss_cls", "loss_triplet", "loss_cls_local", "loss_triplet_local"}
    assert set(losses) == identity | {"loss_view", "loss_orthogonal", "loss_balance"}

    def cross_entropy(features, head, targets):
        neck = head.bottleneck[0]
        normed = F.batch_norm(features, None, None, neck.weight, neck.bias, training=True)
        return F.cross_entropy(normed @ head.weight.T, targets)

    def triplet(features):
        distances = torch.cdist(features, features)
        rows = []
        for row, target in zip(distances, batch["targets"], strict=True):
            same = batch["targets"] == target
            rows.append(torch.log1p(torch.exp(row[same].max() - row[~same].min())))
        return sum(rows) / len(rows)

    local, targets = encoded.local_features, batch["targets"]
    close(losses["loss_cls_local"], cross_entropy(local, model.local_heads, targets))
    close(losses["loss_triplet_local"], triplet(local))
    close(losses["loss_cls"], cross_entropy(encoded.features, model.heads, targets))
    of_view = cross_entropy(encoded.view_features, model.view_heads, batch["viewids"])
    close(losses["loss_view"], 0.5 * of_view)
    branch = model.local_branch
    with torch.no_grad():
        imbalance = imbalance_of([mixed(branch.shared_experts, token)[1] for token in encoded.features])
        for view, mixture in enumerate(branch.view_experts.views):
            tokens = encoded.view_features[batch["viewids"] == view]
            imbalance += len(tokens) / 12 * imbalance_of([mixed(mixture, token)[1] for token in tokens])
    assert losses["loss_balance"].item() == pytest.approx(0.3 * imbalance, rel=1e-4)


def test_switched_off_it_is_the_plain_vit(make_batch):
    check_is_the_plain_vit(
        build_model(small_cfg("ViSA", *PLAIN, *NO_VIEWS, *NO_LOCAL), NAMES[2]), make_batch()
    )


def test_without_the_local_feature_and_with_equal_view_tokens_it_is_vdt(visa, make_batch):
    """But for the subtraction after the last block."""
    model = visa(2, *NO_LOCAL, "MODEL.BACKBONE.INNER_SUB", "False")
    cfg = small_vit_cfg("VDT", "build_view_token_vit_backbone", "MODEL.BACKBONE.INNER_SUB", "False")
    vdt, state = build_model(cfg, NAMES[2]), model.state_dict()
    with torch.no_grad():
        model.backbone.view_token[1] = model.backbone.view_token[0]
    vdt.load_state_dict(state | {"backbone.view_token": state["backbone.view_token"][:1]})
    batch = make_batch()
    torch.testing.assert_close(model(batch), vdt(batch))
    torch.testing.assert_close(model.eval()(batch), vdt.eval()(batch))


def test_an_images_feature_does_not_depend_on_its_batch_but_on_its_view(visa, make_batch):
    model, batch = visa().eval(), make_batch()
    together = model(batch)
    for row in range(3):
        alone = {name: batch[name][row : row + 1] for name in ("images", "viewids")}
        close(model(alone), together[row : row + 1])
    assert not torch.allclose(model(batch | {"viewids": 1 - batch["viewids"]}), together, atol=1e-2)
    assert model.test_labels == {"viewids"}


@pytest.mark.parametrize(
    "options",
    [(), NO_LOCAL, NO_VIEWS, (*NO_LOCAL, *NO_VIEWS), ("MODEL.LOSSES.NAME", "['TripletLoss']")],
)
def test_every_parameter_trains_whatever_is_off_and_whichever_views_a_batch_has(visa, make_batch, options):
    for views in (2, 3):
        model, batch = visa(views, *options), make_batch()
        batch["viewids"] = torch.zeros_like(batch["viewids"])
        sum(model(batch).values()).backward()
        missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_it_trains_in_half_precision(visa, make_batch, kind):
    model, batch = visa(), make_batch()
    with torch.autocast("cpu", kind):
        losses = model(batch)
    expected = model(batch)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.1, abs=0.05)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_data_and_the_weights_tell_the_number_of_views(visa):
    assert visa(3).cfg.MODEL.BACKBONE.VIEW_NUM == 3
    cfg = small_cfg()
    type(visa()).fit_to_weights(cfg, visa(3).state_dict())
    assert cfg.MODEL.BACKBONE.VIEW_NUM == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("MODEL.BACKBONE.TOP_K", "5"), "TOP_K is 5, but there are 4 experts of each; use at most"),
        ((*PLAIN, *NO_VIEWS), "USE_VISA is True, but build_plain_vit_backbone has no features for it; set"),
        ((*PLAIN, *NO_LOCAL), "CE.VIEW_ID is True, but build_plain_vit_backbone has no view token; set"),
        (("MODEL.BACKBONE.GRAPH_TOP_K", "9"), "GRAPH_TOP_K is 9, but there are 8 patches; use at most 8"),
        (
            ("MODEL.BACKBONE.VIEW_NUM", "3"),
            r"VIEW_NUM is 3, but the training data has 2 views \(aerial, cctv\)",
        ),
        (("MODEL.BACKBONE.NUM_LAYERS", "1"), "at least 2 blocks"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, said):
    def build():
        cfg = small_cfg("ViSA", *options)
        check_config(cfg)
        build_model(fit_config(cfg, 6, NAMES[2].views), NAMES[2])

    with pytest.raises(UserError, match=said):
        build()


def test_its_backbone_is_its_own():
    with pytest.raises(UserError, match="build_view_tokens_vit_backbone is ViSA's alone"):
        build_model(small_vit_cfg("ViTBaseline", "build_view_tokens_vit_backbone"))


def test_a_timm_file_leaves_the_view_tokens_as_they_are(visa, tmp_path):
    model = visa()
    own = model.backbone.state_dict()
    state = {name: torch.randn_like(tensor) for name, tensor in own.items() if name != "view_token"}
    state["pos_embed"] = torch.randn(1, 1 + 3 * 3, 128)
    torch.save(state, tmp_path / "vit.pth")
    before = model.backbone.view_token.clone()
    assert model.backbone.load_pretrained(tmp_path / "vit.pth").missing == ["view_token"]
    assert torch.equal(model.backbone.view_token, before)
    assert torch.equal(model.backbone.pos_embed[:, :2], state["pos_embed"][:, :2])
    assert torch.equal(model.backbone.blocks[2].mlp.fc1.weight, state["blocks.2.mlp.fc1.weight"])


def test_its_authors_configuration_loads(tmp_path):
    (tmp_path / "visa.yml").write_text("""
        MODEL:
          META_ARCHITECTURE: Baseline_multiview_ViSA
          USE_VISA: False
          BACKBONE:
            NAME: build_multiview_vit_backbone_ViSA
            STRIDE_SIZE: (12, 10)
            PROMPT_LEN: 8
            PROMPT_DEPTH: 2
            USE_PRM: True
            EXPERTS: 5
            TOP_K: 3
            GRAPH_TOP_K: 32
          LOSSES: {CE: {VIEW_LAMBDA: 0.7}}
        SOLVER: {CHECKPOINT_PERIOD: 5}
        """)
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "visa.yml")
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.LOSSES.CE.VIEW_LAMBDA) == ("ViSA", 0.7)
    assert cfg.MODEL.BACKBONE.NAME == "build_view_tokens_vit_backbone"
    found = {key: cfg.MODEL.BACKBONE[key] for key in ("PROMPT_LEN", "EXPERTS", "TOP_K", "GRAPH_TOP_K")}
    assert found == {"PROMPT_LEN": 8, "EXPERTS": 5, "TOP_K": 3, "GRAPH_TOP_K": 32}
    assert cfg.MODEL.USE_VISA is False
    assert (cfg.MODEL.BACKBONE.VIEW_NUM, cfg.SOLVER.CHECKPOINT_PERIOD) == (2, 20)


def test_an_expert_begins_with_queries_that_differ():
    """Equal prompts would stay equal: nothing tells them apart afterwards."""
    distances = torch.cdist(*[QueryExpert(32, 4, 6)(torch.randn(2, 32))] * 2) + torch.eye(6)
    assert (distances > 1e-3).all()


def test_which_experts_are_chosen_is_no_matter_of_mixed_precision():
    mixture, token = ExpertMixture(32, 4, 3, count=5, top_k=2), torch.randn(8, 32)
    everyone = torch.ones(8, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixture(token, everyone).imbalance
    assert torch.equal(mixed, mixture(token, everyone).imbalance)
