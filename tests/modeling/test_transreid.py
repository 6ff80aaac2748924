"""TransReID: each of its parts against plain computations, and without them the plain ViT."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from small_methods import small_vit_cfg

from fastreid.modeling import build_model
from fastreid.modeling.meta_arch.transreid import rearranged
from fastreid.structures import DataNames, Sample
from fastreid.utils.errors import UserError

NAMES = DataNames(cameras={0: "1", 1: "2", 4: "5"}, views=("aerial", "ground"))
CAMERA, VIEW, JPM = (f"MODEL.TRANSREID.{part}" for part in ("SIE_CAMERA", "SIE_VIEW", "JPM"))
PLAIN = (CAMERA, "False", JPM, "False")


def small_cfg(method: str = "TransReID", *options):
    """Overlapping patches."""
    own = "build_transreid_backbone" if method == "TransReID" else "build_plain_vit_backbone"
    return small_vit_cfg(method, own, "MODEL.BACKBONE.STRIDE_SIZE", "[12, 12]", *options)


@pytest.fixture
def transreid(randomize):
    """`transreid("KEY", value, …)`: a small TransReID, all of it random."""

    def build(*options):
        model = build_model(small_cfg("TransReID", *options), NAMES)
        randomize(model)
        return model

    return build


@pytest.mark.parametrize(("patches", "shift", "groups"), [(12, 5, 2), (210, 5, 2), (9, 5, 2), (10, 1, 3)])
def test_patches_are_moved_and_then_taken_from_each_group_in_turn(patches, shift, groups):
    numbers = list(range(patches))
    moved = numbers[shift - 1 :] + numbers[: shift - 1]
    while len(moved) % groups:
        moved.append(moved[-2])
    runs = [moved[i : i + len(moved) // groups] for i in range(0, len(moved), len(moved) // groups)]
    expected = [run[place] for place in range(len(runs[0])) for run in runs]
    found = rearranged(torch.arange(patches)[None, :, None], shift, groups)
    assert found.flatten().tolist() == expected


@pytest.mark.parametrize("rearrange", [True, False])
@torch.no_grad()
def test_each_group_passes_a_block_of_its_own_with_the_class_token(transreid, make_batch, rearrange):
    model = transreid(CAMERA, "False", "MODEL.TRANSREID.RE_ARRANGE", str(rearrange)).eval()
    vit, batch = model.backbone, make_batch()
    tokens = vit.embed((batch["images"].float() - 127.5) / 127.5)
    for block in vit.blocks[:2]:
        tokens = block(tokens)
    patches = rearranged(tokens[:, 1:], 5, 2) if rearrange else tokens[:, 1:]
    length = (tokens.shape[1] - 1) // 4
    encoded = model.encode(batch)
    torch.testing.assert_close(encoded.features, vit.norm(vit.blocks[2](tokens))[:, 0])
    for group in range(4):
        own = torch.cat([tokens[:, :1], patches[:, group * length : (group + 1) * length]], dim=1)
        expected = vit.local_norm(vit.local_block(own)[:, 0])
        torch.testing.assert_close(encoded.local_features[:, group], expected, atol=1e-5, rtol=1e-5)
    parts = [model.heads(encoded.features)]
    parts += [head(encoded.local_features[:, k]) / 4 for k, head in enumerate(model.local_heads)]
    torch.testing.assert_close(model(batch), torch.cat(parts, dim=1))
    assert model.feature_parts() == {"person": 128} | {f"group {k}": 128 for k in range(1, 5)}
    torch.testing.assert_close(model(batch, ["group 2", "person"]), torch.cat([parts[2], parts[0]], dim=1))


@pytest.mark.parametrize("read", [(CAMERA,), (VIEW,), (CAMERA, VIEW)])
@torch.no_grad()
def test_side_information_is_added_to_every_token(transreid, make_batch, read):
    chosen = {CAMERA: "False", VIEW: "False"} | dict.fromkeys(read, "True")
    model = transreid(*(text for pair in chosen.items() for text in pair), JPM, "False").eval()
    batch = make_batch() | {"camids": torch.arange(12) % 5}
    tokens = model.backbone.embed((batch["images"].float() - 127.5) / 127.5)
    for row in range(len(tokens)):
        number = int(batch["camids"][row]) if CAMERA in read else 0
        if VIEW in read:
            number = number * 2 + int(batch["viewids"][row])
        tokens[row] += 3.0 * model.side_information.vectors[number]
    for block in model.backbone.blocks:
        tokens = block(tokens)
    expected = model.backbone.norm(tokens)[:, 0]
    torch.testing.assert_close(model.encode(batch).features, expected, atol=1e-5, rtol=1e-5)
    named = {CAMERA: "camids", VIEW: "viewids"}
    assert model.test_labels == {named[key] for key in read}


@torch.no_grad()
def test_a_camera_that_training_did_not_know_has_no_side_information(transreid, make_batch):
    model, batch = transreid(JPM, "False").eval(), make_batch()
    unknown = model.encode(batch | {"camids": torch.full((12,), 77)}).features
    model.side_information.vectors.zero_()
    torch.testing.assert_close(unknown, model.encode(batch).features)


@torch.no_grad()
def test_a_camera_without_a_training_image_has_none_either(transreid, make_batch):
    model, batch = transreid(JPM, "False").eval(), make_batch()
    samples = [Sample("a.jpg", 0, camera, 0) for camera in (0, 1, 4, 0)]  # 2 and 3 are gaps in the numbers
    model.on_train_start(SimpleNamespace(samples=samples), None)
    without = model.encode(batch | {"camids": torch.full((12,), 77)}).features
    for camera in range(5):
        found = model.encode(batch | {"camids": torch.full((12,), camera)}).features
        assert torch.equal(found, without) == (camera in (2, 3))


@pytest.mark.parametrize("off", [CAMERA, VIEW])
def test_what_it_does_not_read_changes_nothing(transreid, make_batch, off):
    other = {CAMERA: VIEW, VIEW: CAMERA}[off]
    model, batch = transreid(off, "False", other, "True").eval(), make_batch()
    changed = {CAMERA: {"camids": batch["camids"] + 2}, VIEW: {"viewids": 1 - batch["viewids"]}}
    assert torch.equal(model(batch), model(batch | changed[off]))
    assert not torch.equal(model(batch), model(batch | changed[other]))


def test_half_of_each_loss_is_the_persons_and_half_the_mean_of_the_groups(transreid, make_batch):
    model, batch = transreid(), make_batch()
    encoded, losses = model.encode(batch), model(batch)
    assert set(losses) == {"loss_cls", "loss_triplet"}

    def cross_entropy(features, head):
        neck = head.bottleneck[0]
        normed = F.batch_norm(features, None, None, neck.weight, neck.bias, training=True)
        return F.cross_entropy(normed @ head.weight.T, batch["targets"])

    local = [cross_entropy(encoded.local_features[:, k], head) for k, head in enumerate(model.local_heads)]
    expected = 0.5 * cross_entropy(encoded.features, model.heads) + 0.5 * sum(local) / 4
    torch.testing.assert_close(losses["loss_cls"], expected, atol=1e-5, rtol=1e-5)


def test_switched_off_it_is_the_plain_vit(make_batch):
    model = build_model(small_cfg("TransReID", *PLAIN), NAMES)
    baseline = build_model(small_cfg("ViTBaseline"), NAMES)
    assert list(model.state_dict()) == list(baseline.state_dict())
    assert all(map(torch.equal, model.state_dict().values(), baseline.state_dict().values()))
    batch = make_batch()
    assert model(batch) == baseline(batch)
    assert torch.equal(model.eval()(batch), baseline.eval()(batch))


@pytest.mark.parametrize("options", [(), PLAIN, (JPM, "False"), ("MODEL.LOSSES.NAME", "['TripletLoss']")])
def test_every_parameter_trains(transreid, make_batch, options):
    model = transreid(*options)
    sum(model(make_batch()).values()).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_the_modules_block_starts_from_the_files_last_one(transreid, tmp_path):
    model = transreid()
    own = model.backbone.state_dict()
    state = {name: torch.randn_like(tensor) for name, tensor in own.items() if "local" not in name}
    torch.save(state, tmp_path / "vit.pth")
    model.backbone.load_pretrained(tmp_path / "vit.pth")
    loaded = model.backbone.state_dict()
    for name in model.backbone.local_block.state_dict():
        assert torch.equal(loaded[f"local_block.{name}"], state[f"blocks.2.{name}"])
    assert torch.equal(loaded["local_norm.weight"], state["norm.weight"])


def test_more_groups_than_patches_are_refused():
    with pytest.raises(UserError, match="DIVIDE_LENGTH is 40, but there are 10 patches"):
        build_model(small_cfg("TransReID", "MODEL.TRANSREID.DIVIDE_LENGTH", "40"), NAMES)
