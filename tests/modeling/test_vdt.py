"""VDT: its parts against plain computations, and without them the plain ViT."""

import pytest
import torch
import torch.nn.functional as F
from small_methods import NAMES, NO_VIEWS, PLAIN, check_is_the_plain_vit, small_vit_cfg

from fastreid.config import check_config, get_cfg
from fastreid.engine import load_trained_model
from fastreid.modeling import build_model
from fastreid.utils.errors import UserError

KINDS = ("weight", "bias")
LAYERS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
PARTS_OF_A_BLOCK = [f"{layer}.{kind}" for layer in LAYERS for kind in KINDS]


def small_cfg(method: str = "VDT", *options):
    own = "build_view_token_vit_backbone" if method == "VDT" else "build_plain_vit_backbone"
    return small_vit_cfg(method, own, *options)


@pytest.fixture
def vdt(randomize):
    """`vdt(views, "KEY", value, …)`: a small VDT, all of it random."""

    def build(views: int = 2, *options):
        model = build_model(small_cfg("VDT", *options), NAMES[views])
        randomize(model)
        return model

    return build


@pytest.mark.parametrize("inner", [True, False])
@torch.no_grad()
def test_the_view_token_is_subtracted_after_each_block_and_at_the_end(vdt, make_batch, inner):
    model, batch = vdt(2, "MODEL.BACKBONE.INNER_SUB", str(inner)).eval(), make_batch()
    vit = model.backbone
    patches = vit.patch_embed((batch["images"].float() - 127.5) / 127.5)
    tokens = []
    for image in patches:  # one at a time, as lists of vectors
        sequence = torch.stack([vit.cls_token[0, 0], vit.view_token[0, 0], *image]) + vit.pos_embed[0]
        for block in vit.blocks:
            sequence = block(sequence[None])[0]
            if inner:
                sequence = torch.stack([sequence[0] - sequence[1], *sequence[1:]])
        tokens.append(vit.norm(sequence))
    person = torch.stack([sequence[0] - sequence[1] for sequence in tokens])
    encoded = model.encode(batch)
    torch.testing.assert_close(encoded.features, person, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        encoded.view_features, torch.stack([t[1] for t in tokens]), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(model(batch), model.heads(person), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("views", [2, 3])
def test_the_losses_are_identity_view_and_the_cosine_between_the_two(vdt, make_batch, views):
    model, batch = vdt(views, "MODEL.LOSSES.CE.VIEW_LAMBDA", "0.5"), make_batch(views)
    encoded, losses = model.encode(batch), model(batch)
    assert set(losses) == {"loss_cls", "loss_triplet", "loss_view", "loss_orthogonal"}
    neck = model.view_heads.bottleneck[0]
    view = F.batch_norm(encoded.view_features, None, None, neck.weight, neck.bias, training=True)
    expected = 0.5 * F.cross_entropy(view @ model.view_heads.weight.T, batch["viewids"])
    torch.testing.assert_close(losses["loss_view"], expected, atol=1e-5, rtol=1e-5)
    assert model.view_heads.weight.shape == (views, 128)
    pairs = zip(encoded.features.detach(), encoded.view_features.detach(), strict=True)
    cosines = [abs(float(p @ v / (p.norm() * v.norm()))) for p, v in pairs]
    assert losses["loss_orthogonal"].item() == pytest.approx(0.5 * sum(cosines) / len(cosines), rel=1e-4)


def test_switched_off_it_is_the_plain_vit(make_batch):
    check_is_the_plain_vit(build_model(small_cfg("VDT", *PLAIN, *NO_VIEWS), NAMES[2]), make_batch())


@pytest.mark.parametrize("off", ["VIEW_ID", "VIEW_OREG"])
def test_every_parameter_trains_whatever_is_off(vdt, make_batch, off):
    for options in ((), (f"MODEL.LOSSES.CE.{off}", "False"), NO_VIEWS):
        model = vdt(2, *options)
        sum(model(make_batch()).values()).backward()
        missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []


def test_another_camera_or_view_changes_nothing_at_test_time(vdt, make_batch):
    model, batch = vdt().eval(), make_batch()
    other = {**batch, "camids": batch["camids"] + 3, "viewids": 1 - batch["viewids"]}
    assert torch.equal(model(batch), model(other))
    assert model.test_labels == frozenset()


def test_losses_of_views_without_a_view_token_are_refused():
    with pytest.raises(UserError, match=r"VIEW_ID is True, but build_plain_vit_backbone has no view token"):
        check_config(small_cfg("VDT", *PLAIN))


def test_a_timm_file_gives_the_view_token_the_position_of_the_first_patch(vdt, tmp_path):
    model = vdt()
    state = {
        name: torch.randn_like(t) for name, t in model.backbone.state_dict().items() if "view" not in name
    }
    state["pos_embed"] = torch.randn(1, 1 + 3 * 3, 128)
    torch.save(state, tmp_path / "vit.pth")
    before = model.backbone.view_token.clone()
    report = model.backbone.load_pretrained(tmp_path / "vit.pth")
    assert report.missing == ["view_token"]
    assert torch.equal(model.backbone.view_token, before)
    grid = state["pos_embed"][:, 1:].reshape(1, 3, 3, 128).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(4, 2), mode="bilinear").permute(0, 2, 3, 1).reshape(1, 8, 128)
    expected = torch.cat([state["pos_embed"][:, :2], grid], dim=1)
    torch.testing.assert_close(model.backbone.pos_embed, expected)


def test_its_authors_configuration_loads(tmp_path):
    (tmp_path / "VDT.yml").write_text("""
        MODEL:
          META_ARCHITECTURE: Baseline_multiview
          BACKBONE: {NAME: build_multiview_vit_backbone_onebranch, INNER_SUB: False, SIE_COE: 3.0}
          LOSSES: {CE: {VIEW_ID: True, VIEW_OREG: False, VIEW_LAMBDA: 0.01}}
        SOLVER: {CHECKPOINT_PERIOD: 5}
        """)
    cfg = get_cfg()
    cfg.merge_from_file(tmp_path / "VDT.yml")
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.INNER_SUB) == ("VDT", False)
    assert cfg.MODEL.BACKBONE.NAME == "build_view_token_vit_backbone"
    assert cfg.MODEL.LOSSES.CE.VIEW_OREG is False
    assert (cfg.MODEL.LOSSES.CE.VIEW_LAMBDA, cfg.SOLVER.CHECKPOINT_PERIOD) == (0.01, 20)


@pytest.fixture
def authors_file(vdt):
    """The model that their code would have trained, and its state dict with their names."""
    model = vdt().eval()
    names = [f"backbone.blocks.{block}.{part}" for block in range(3) for part in PARTS_OF_A_BLOCK]
    names += [f"backbone.{part}" for part in ("cls_token", "view_token", "pos_embed")]
    names += [
        f"backbone.{layer}.{kind}" for layer in ("patch_embed.proj", "norm") for kind in ("weight", "bias")
    ]
    necks = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names += [f"{head}.bottleneck.0.{kind}" for head in ("heads", "view_heads") for kind in necks]
    names += ["heads.weight", "view_heads.weight"]
    state = model.state_dict()
    assert set(names) == set(state)
    return model, {f"module.{name}": state[name] for name in names}


def test_its_authors_checkpoint_is_evaluated_as_it_is(authors_file, make_batch, tmp_path):
    """Their names are ours; the file says neither method nor views."""
    model, state = authors_file
    torch.save({"model": state, "epoch": 119}, tmp_path / "vdt.pth")
    loaded = load_trained_model(small_cfg("VDT", "MODEL.WEIGHTS", str(tmp_path / "vdt.pth")))
    batch = make_batch()
    assert torch.equal(loaded(batch), model(batch))


def test_its_authors_checkpoint_converts(authors_file, make_batch, convert_checkpoint, converted):
    """They count the ground as view 0: the view classifier's rows change places."""
    model, state = authors_file
    yaml = """
        MODEL:
          META_ARCHITECTURE: Baseline_multiview
          BACKBONE: {NAME: build_multiview_vit_backbone_onebranch, DEPTH: custom, FEAT_DIM: 128,
                     NUM_LAYERS: 3, NUM_HEADS: 4}
        INPUT: {SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32]}
        """
    code, printed = convert_checkpoint({"model": state}, yaml, "MODEL.DEVICE", "cpu")
    assert code == 0, printed
    assert "unknown" not in printed
    ours, batch = converted(), make_batch()
    assert torch.equal(ours(batch), model(batch))
    theirs = state["module.view_heads.weight"]
    assert torch.equal(ours.view_heads.weight, torch.stack([theirs[1], theirs[0]]))


def test_a_method_without_known_checkpoints_says_which_have_some(convert_checkpoint):
    code, printed = convert_checkpoint({"model": {}}, "MODEL: {META_ARCHITECTURE: BoT}")
    assert code == 2
    assert "no checkpoints of the authors of BoT are known" in printed
    assert "VDT" in printed
