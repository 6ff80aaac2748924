"""The baselines: against timm's and torchvision's own networks, and blind to cameras and views."""

import pytest
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer as TimmViT

from fastreid.config import CfgNode, check_config, get_cfg
from fastreid.modeling import build_model
from fastreid.modeling.backbones import ResNet
from fastreid.utils.errors import UserError

BACKBONES = {
    "ViTBaseline": ("build_plain_vit_backbone", "custom", "128"),
    "BoT": ("build_resnet_backbone", "18x", "512"),
}


@pytest.fixture
def baseline_cfg():
    """`baseline_cfg(method, "KEY", value, …)`: a small baseline of 6 identities on 64x32 images."""

    def build(method: str, *options) -> CfgNode:
        cfg, (name, depth, width) = get_cfg(), BACKBONES[method]
        cfg.merge_from_list(["MODEL.META_ARCHITECTURE", method, "MODEL.DEVICE", "cpu"])
        cfg.merge_from_list(["MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.DEPTH", depth])
        cfg.merge_from_list(["MODEL.BACKBONE.FEAT_DIM", width, "MODEL.BACKBONE.NUM_LAYERS", "3"])
        cfg.merge_from_list(["MODEL.BACKBONE.NUM_HEADS", "4", "MODEL.HEADS.NUM_CLASSES", "6"])
        cfg.merge_from_list(["INPUT.SIZE_TRAIN", "[64, 32]", "INPUT.SIZE_TEST", "[64, 32]", *options])
        torch.manual_seed(0)
        return cfg

    return build


def random_statistics(module: torch.nn.Module) -> None:
    """Give batch norms statistics that do not hide them."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)


@torch.no_grad()
def test_the_vit_baselines_feature_is_timms_class_token_after_the_neck(baseline_cfg, make_batch):
    model, batch = build_model(baseline_cfg("ViTBaseline")).eval(), make_batch()
    random_statistics(model)
    timm = TimmViT((64, 32), 16, embed_dim=128, depth=3, num_heads=4, num_classes=0).eval()
    timm.load_state_dict(model.backbone.state_dict())
    tokens = timm.forward_features((batch["images"].float() - 127.5) / 127.5)
    neck = model.heads.bottleneck[0]
    centred = (tokens[:, 0] - neck.running_mean) / (neck.running_var + neck.eps).sqrt()
    torch.testing.assert_close(model(batch), centred * neck.weight + neck.bias, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.encode(batch).patch_tokens, tokens[:, 1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("depth", "last_stride"), [("18x", 1), ("50x", 1), ("50x", 2)])
@torch.no_grad()
def test_the_resnet_is_torchvisions_with_another_last_stride(depth, last_stride):
    model = ResNet(depth, last_stride).eval()
    random_statistics(model)
    oracle = getattr(torchvision.models, f"resnet{depth[:-1]}")(weights=None).eval()
    oracle.fc = torch.nn.Identity()
    oracle.load_state_dict(model.network.state_dict())
    if last_stride == 1:
        first = oracle.layer4[0]
        (first.conv1 if depth == "18x" else first.conv2).stride = (1, 1)
        first.downsample[0].stride = (1, 1)
    images = torch.randn(2, 3, 64, 32)
    expected = oracle(images)
    torch.testing.assert_close(model(images).features, expected, atol=1e-4 * expected.max().item(), rtol=1e-4)


def test_the_resnet_loads_torchvisions_file_and_refuses_another_depth(tmp_path):
    oracle, model = torchvision.models.resnet18(weights=None), ResNet("18x")
    torch.save(oracle.state_dict(), tmp_path / "resnet18.pth")
    assert model.check_pretrained(tmp_path / "resnet18.pth") == "120 tensors fit"
    model.load_pretrained(tmp_path / "resnet18.pth")
    own = model.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in oracle.state_dict().items() if name in own)
    with pytest.raises(UserError, match=r"do not fit the ResNet: layer1.2.conv1.weight is missing"):
        ResNet("34x").load_pretrained(tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match="pretrained weights .*resnet50.pth not found") as error:
        ResNet("50x").load_pretrained(tmp_path / "resnet50.pth")
    assert "resnet50" in error.value.fix


@pytest.mark.parametrize("method", BACKBONES)
def test_another_camera_or_view_changes_nothing(baseline_cfg, make_batch, method):
    model, batch = build_model(baseline_cfg(method)), make_batch()
    other = {**batch, "camids": batch["camids"] + 3, "viewids": 1 - batch["viewids"]}
    assert model.test_labels == frozenset()
    assert torch.equal(model.eval()(batch), model(other))
    losses = []
    for given in (batch, other):
        torch.manual_seed(1)
        losses.append(model.train()(given))
    assert losses[0] == losses[1]
    assert set(losses[0]) == {"loss_cls", "loss_triplet"}


@pytest.mark.parametrize("method", BACKBONES)
def test_every_parameter_trains(baseline_cfg, make_batch, method):
    model = build_model(baseline_cfg(method))
    sum(model(make_batch()).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("method", "name", "said"),
    [
        ("ViTBaseline", "build_vit_backbone", "ViTBaseline is made of build_plain_vit_backbone"),
        ("BoT", "build_plain_vit_backbone", "BoT is made of build_resnet_backbone"),
    ],
)
def test_another_backbone_than_its_own_is_refused(baseline_cfg, method, name, said):
    with pytest.raises(UserError, match=said):
        check_config(baseline_cfg(method, "MODEL.BACKBONE.NAME", name))


@pytest.mark.parametrize(
    "name", ["build_plain_vit_backbone", "build_resnet_backbone", "build_transreid_backbone"]
)
def test_a_backbone_of_another_method_is_refused_by_sd_reid(name):
    cfg = get_cfg()
    sizes = ("50x", "2048") if "resnet" in name else ("tiny", "192")
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", name, "MODEL.BACKBONE.DEPTH", sizes[0]])
    cfg.merge_from_list(["MODEL.BACKBONE.FEAT_DIM", sizes[1], "MODEL.HEADS.NUM_CLASSES", "6"])
    with pytest.raises(UserError, match="gives no view token|is TransReID's alone"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("method", "key", "value", "said"),
    [
        ("BoT", "DEPTH", "base", "'base' is no ResNet's"),
        ("BoT", "FEAT_DIM", "2048", "set FEAT_DIM to 512"),
        ("ViTBaseline", "DEPTH", "50x", "'50x' is no ViT's"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(baseline_cfg, method, key, value, said):
    with pytest.raises(UserError) as error:
        build_model(baseline_cfg(method, f"MODEL.BACKBONE.{key}", value))
    assert said in f"{error.value.problem} {error.value.fix}"
