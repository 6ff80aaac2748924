"""SeCap: its parts against plain computations, and without them the plain ViT."""

import pytest
import torch
import torch.nn.functional as F
from plain_secap import attention_block, refined
from small_methods import NAMES, NO_VIEWS, PLAIN, check_is_the_plain_vit, small_vit_cfg

from fastreid.config import check_config, get_cfg
from fastreid.modeling import build_model
from fastreid.utils.errors import UserError

OWN = {"SeCap": "build_secap_backbone", "VDT": "build_view_token_vit_backbone"}
GLOBAL_ONLY = ("MODEL.USE_SECAP", "False")
NO_PRM = ("MODEL.BACKBONE.USE_PRM", "False")
ONE_LOSS = ("MODEL.LOSSES.NAME", "['TripletLoss']")
HEADS = 4
LFRM = {part: f"refinement.{part}" for part in ("layers", "final", "norm")}


def small_cfg(method: str = "SeCap", *options):
    prompts = ("MODEL.BACKBONE.PROMPT_LEN", "5") if method == "SeCap" else ()
    return small_vit_cfg(method, OWN.get(method, PLAIN[1]), *prompts, *options)


@pytest.fixture
def secap(randomize):
    """`secap(views, "KEY", value, …)`: a small SeCap of 5 prompts, all of it random."""

    def build(views: int = 2, *options):
        model = build_model(small_cfg("SeCap", *options), NAMES[views])
        randomize(model)
        return model

    return build


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("inner", [True, False])
@torch.no_grad()
def test_the_view_is_subtracted_after_each_block_but_the_last_and_from_the_result(secap, make_batch, inner):
    model, batch = secap(2, "MODEL.BACKBONE.INNER_SUB", str(inner)).eval(), make_batch()
    vit = model.backbone
    encoded = vit(model.pixels(batch))
    for image, patches in enumerate(vit.patch_embed((batch["images"].float() - 127.5) / 127.5)):
        sequence = torch.stack([vit.cls_token[0, 0], vit.view_token[0, 0], *patches]) + vit.pos_embed[0]
        for block in vit.blocks[:2]:
            sequence = block(sequence[None])[0]
            if inner:
                sequence = torch.stack([sequence[0] - sequence[1], *sequence[1:]])
        close(encoded.patch_tokens[image], sequence[2:])
        sequence = vit.norm(vit.blocks[2](sequence[None]))[0]
        close(encoded.features[image], sequence[0] - sequence[1])
        close(encoded.view_features[image], sequence[1])


@torch.no_grad()
def test_prompts_are_recalibrated_by_attention_to_the_persons_feature(secap):
    decoder, persons = secap().decoder, torch.randn(3, 128)
    found, state = decoder.recalibrated(persons), decoder.state_dict()
    for prompts, person in zip(found, persons, strict=True):
        memory = person[None]
        close(prompts, attention_block(state, "recalibration", state["prompts"][0], memory, memory, HEADS))


@torch.no_grad()
def test_without_recalibration_all_images_have_the_same_prompts(secap):
    decoder, persons = secap(2, *NO_PRM).decoder, torch.randn(3, 128)
    assert torch.equal(decoder.recalibrated(persons), decoder.prompts.expand(3, -1, -1))
    assert "recalibration" not in dict(decoder.named_children())


@pytest.mark.parametrize("options", [(), NO_PRM])
@torch.no_grad()
def test_the_local_feature_is_the_out_token_after_refinement(secap, make_batch, options):
    model, batch = secap(2, *options).eval(), make_batch()
    found, encoded = model.encode(batch), model.backbone(model.pixels(batch))
    state = model.decoder.state_dict()
    for image, prompts in enumerate(model.decoder.recalibrated(encoded.features)):
        given, places = torch.cat([state["out_token"], prompts]), state["patch_positions"][0]
        local = refined(state, LFRM, given, encoded.patch_tokens[image], places, HEADS)
        close(found.local_features[image], local)
    assert torch.equal(found.features, encoded.features)
    assert torch.equal(found.view_features, encoded.view_features)


@torch.no_grad()
def test_the_retrieval_feature_joins_person_and_local_each_after_its_neck(secap, make_batch):
    model, batch = secap().eval(), make_batch()
    encoded = model.encode(batch)
    person, local = model.heads(encoded.features), model.local_heads(encoded.local_features)
    assert torch.equal(model(batch), torch.cat([person, local], dim=1))
    assert torch.equal(model(batch, ["local"]), local)
    assert model.feature_parts() == {"person": 128, "local": 128}
    assert model.test_labels == frozenset()


@torch.no_grad()
def test_an_images_feature_does_not_depend_on_its_batch(secap, make_batch):
    model, batch = secap().eval(), make_batch()
    alone = [model({"images": batch["images"][image : image + 1]}) for image in range(12)]
    close(torch.cat(alone), model(batch))


@pytest.mark.parametrize("views", [2, 3])
def test_the_losses_are_vdts_and_those_of_identity_on_the_local_feature(secap, make_batch, views):
    model, batch = secap(views, "MODEL.LOSSES.CE.VIEW_LAMBDA", "0.5"), make_batch(views)
    encoded, losses = model.encode(batch), model(batch)
    vdts = {"loss_cls", "loss_triplet", "loss_view", "loss_orthogonal"}
    assert set(losses) == vdts | {"loss_cls_local", "loss_triplet_local"}
    targets, heads = batch["targets"], {"": model.heads, "_local": model.local_heads}
    features = {"": encoded.features, "_local": encoded.local_features}
    for part, head in heads.items():
        neck = head.bottleneck[0]
        after = F.batch_norm(features[part], None, None, neck.weight, neck.bias, training=True)
        close(losses[f"loss_cls{part}"], F.cross_entropy(after @ head.weight.T, targets))
        distances = torch.cdist(features[part], features[part])
        same = targets[:, None] == targets
        hardest = (distances * same).amax(dim=1) - (distances + 1e9 * same).amin(dim=1)
        close(losses[f"loss_triplet{part}"], F.softplus(hardest).mean())
    neck = model.view_heads.bottleneck[0]
    after = F.batch_norm(encoded.view_features, None, None, neck.weight, neck.bias, training=True)
    viewed = F.cross_entropy(after @ model.view_heads.weight.T, batch["viewids"])
    close(losses["loss_view"], 0.5 * viewed)
    cosines = F.cosine_similarity(encoded.features, encoded.view_features)
    close(losses["loss_orthogonal"], 0.5 * cosines.abs().mean())
    assert model.view_heads.weight.shape == (views, 128)


def test_the_local_loss_trains_the_encoder_through_prompts_and_patches(secap, make_batch):
    model = secap()
    model(make_batch())["loss_cls_local"].backward()  # patches do not pass the last norm, the person does
    for name in ("backbone.norm.weight", "backbone.pos_embed", "decoder.prompts", "decoder.patch_positions"):
        assert model.get_parameter(name).grad.abs().sum() > 0


def test_switched_off_it_is_the_plain_vit(make_batch):
    check_is_the_plain_vit(
        build_model(small_cfg("SeCap", *PLAIN, *GLOBAL_ONLY, *NO_VIEWS), NAMES[2]), make_batch()
    )


def test_without_the_local_feature_it_has_the_parameters_and_losses_of_vdt(make_batch):
    model = build_model(small_cfg("SeCap", *GLOBAL_ONLY, "MODEL.BACKBONE.INNER_SUB", "False"), NAMES[2])
    vdt = build_model(small_cfg("VDT", "MODEL.BACKBONE.INNER_SUB", "False"), NAMES[2])
    vdt.load_state_dict(model.state_dict())
    batch = make_batch()
    assert model(batch) == vdt(batch)
    assert torch.equal(model.eval()(batch), vdt.eval()(batch))


@pytest.mark.parametrize("options", [(), GLOBAL_ONLY, NO_PRM, NO_VIEWS, ONE_LOSS])
def test_every_parameter_trains_whatever_is_off(secap, make_batch, options):
    model = secap(2, *options)
    sum(model(make_batch()).values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_heads_and_what_training_alone_reads_include_the_local_heads(secap):
    rules = secap().parameter_rules()
    assert rules.heads == ("heads.", "view_heads.", "local_heads.")
    assert rules.training_only == ("heads.weight", "view_heads.", "local_heads.weight")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            (*PLAIN, *NO_VIEWS),
            "USE_SECAP is True, but build_plain_vit_backbone has no",
        ),
        ((*PLAIN, *GLOBAL_ONLY), "VIEW_ID is True, but build_plain_vit_backbone has no view token"),
        (("MODEL.BACKBONE.NAME", OWN["VDT"]), "SeCap is made of build_secap_backbone or build_plain"),
    ],
)
def test_a_backbone_without_what_is_asked_of_it_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        check_config(small_cfg("SeCap", *options))


def test_heads_that_do_not_divide_half_the_width_are_refused():
    sizes = ("MODEL.BACKBONE.FEAT_DIM", "99", "MODEL.BACKBONE.NUM_HEADS", "3")
    with pytest.raises(UserError, match=r"FEAT_DIM 99 is no multiple of twice MODEL.BACKBONE.NUM_HEADS"):
        build_model(small_cfg("SeCap", *sizes))


def test_its_authors_configuration_loads(tmp_path):
    (tmp_path / "secap.yml").write_text("""
        MODEL:
          META_ARCHITECTURE: Baseline_multiview_SeCap
          USE_SECAP: True
          BACKBONE:
            NAME: build_multiview_vit_backbone_SeCap
            STRIDE_SIZE: (12, 12)
            INNER_SUB: True
            PROMPT_LEN: 128
            PROMPT_DEPTH: 3
            USE_PRM: False
          HEADS: {NAME: EmbeddingHead, POOL_LAYER: Identity}
          LOSSES: {CE: {VIEW_ID: True, VIEW_OREG: True, VIEW_LAMBDA: 10.0}}
        SOLVER: {CHECKPOINT_PERIOD: 5}
        """)
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "secap.yml")
    backbone = cfg.MODEL.BACKBONE
    assert (cfg.MODEL.META_ARCHITECTURE, backbone.NAME) == ("SeCap", "build_secap_backbone")
    assert (backbone.PROMPT_LEN, backbone.PROMPT_DEPTH, backbone.USE_PRM) == (128, 3, False)
    assert (backbone.STRIDE_SIZE, cfg.MODEL.LOSSES.CE.VIEW_LAMBDA) == ([12, 12], 10.0)
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 20
