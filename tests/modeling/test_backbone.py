"""The ViT encoder of Stage 1: tokens, the view prompt, sizes, and pretrained weights."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer as TimmViT

from fastreid.config import check_config, get_cfg
from fastreid.modeling import build_meta_model
from fastreid.modeling.backbones import BACKBONE_REGISTRY, PatchEmbed, ViewPromptTransformer, build_backbone
from fastreid.utils.errors import UserError


def small_cfg(**backbone):
    cfg = get_cfg()
    options = {"DEPTH": "custom", "FEAT_DIM": 32, "NUM_LAYERS": 4, "NUM_HEADS": 4, "PATCH_SIZE": 8}
    options |= {"STRIDE_SIZE": [8, 8], "DROP_PATH_RATIO": 0.0} | backbone
    for key, value in options.items():
        cfg.MODEL.BACKBONE[key] = value
    cfg.INPUT.SIZE_TRAIN = [64, 32]
    cfg.INPUT.SIZE_TEST = [64, 32]
    return cfg


def build(cfg, seed=0):
    torch.manual_seed(seed)
    encoder = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg).eval()
    # Fresh norms and biases are all 1 and 0; random ones show a swap.
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.5)
    return encoder


def layer_norm(x, state, name):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def block_by_hand(x, state, index, heads):
    """A pre-norm transformer block from its formulas, one head at a time."""
    name = f"blocks.{index}"
    query, key, value = linear(layer_norm(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv").chunk(3, -1)
    width = x.shape[-1] // heads
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(width)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        outputs.append(weights @ value[..., part])
    x = x + linear(torch.cat(outputs, -1), state, f"{name}.attn.proj")
    hidden = linear(layer_norm(x, state, f"{name}.norm2"), state, f"{name}.mlp.fc1")
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return x + linear(hidden, state, f"{name}.mlp.fc2")


def timm_twin(encoder, depth=4):
    """timm's own ViT with the encoder's weights, the view prompt left out."""
    twin = TimmViT(img_size=(64, 32), patch_size=8, embed_dim=32, depth=depth, num_heads=4, num_classes=0)
    state = {key: value for key, value in encoder.state_dict().items() if key != "view_prompt"}
    twin.load_state_dict(state)
    return twin.eval()


# ------------------------------------------------------------------------------------------------ tokens
@pytest.mark.parametrize(
    ("size", "patch", "stride", "patches"),
    [
        ([64, 32], 8, [8, 8], 8 * 4),
        ([256, 128], 16, [16, 16], 16 * 8),
        ([256, 128], 16, [12, 12], 21 * 10),
        ([64, 32], 8, [8, 4], 8 * 7),
    ],
)
def test_shapes_follow_the_size_and_the_stride(size, patch, stride, patches):
    cfg = small_cfg(PATCH_SIZE=patch, STRIDE_SIZE=stride)
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = size
    encoder = build(cfg)
    assert encoder.pos_embed.shape == (1, 1 + patches, 32)
    output = encoder(torch.randn(3, 3, *size))
    assert output.features.shape == (3, 32)
    assert output.view_token.shape == (3, 32)
    assert output.id_tokens.shape == (3, 3, 32)
    assert encoder.num_id_tokens == 3


@torch.no_grad()
def test_output_equals_the_formulas():
    encoder = build(small_cfg())
    images = torch.randn(2, 3, 64, 32)
    state = {key: value.double() for key, value in encoder.state_dict().items()}

    kernel = state["patch_embed.proj.weight"].flatten(1)
    patches = F.unfold(images.double(), 8, stride=8).transpose(1, 2) @ kernel.T
    patches = patches + state["patch_embed.proj.bias"]
    tokens = torch.cat([state["cls_token"].expand(2, -1, -1), patches], 1) + state["pos_embed"]
    id_tokens = []
    for index in range(3):
        tokens = block_by_hand(tokens, state, index, heads=4)
        id_tokens.append(tokens[:, 0])
    tokens = block_by_hand(torch.cat([state["view_prompt"].expand(2, -1, -1), tokens], 1), state, 3, heads=4)

    output = encoder(images)
    torch.testing.assert_close(output.id_tokens.double(), torch.stack(id_tokens, 1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.view_token.double(), tokens[:, 0], rtol=1e-4, atol=1e-4)
    person = layer_norm(tokens[:, 1], state, "norm")
    torch.testing.assert_close(output.features.double(), person, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_identity_tokens_are_the_class_tokens_of_timms_vit():
    encoder = build(small_cfg())
    images = torch.randn(2, 3, 64, 32)
    twin = timm_twin(encoder)
    class_tokens = []
    for block in twin.blocks:
        block.register_forward_hook(lambda module, inputs, output: class_tokens.append(output[:, 0]))
    twin(images)
    torch.testing.assert_close(encoder(images).id_tokens, torch.stack(class_tokens[:-1], 1))


@torch.no_grad()
def test_part_tokens_are_means_of_stripes_of_the_patches_before_the_last_block():
    encoder = build(small_cfg(PART_TOKENS=4))
    images = torch.randn(2, 3, 64, 32)
    before = []
    encoder.blocks[-2].register_forward_hook(lambda module, inputs, output: before.append(output))
    output = encoder(images)
    patches = before[0][:, 1:].unflatten(1, encoder.patch_embed.grid_size)  # 8 rows of 4
    assert encoder.num_id_tokens == 3 + 4
    for part in range(4):
        stripe = patches[:, 2 * part : 2 * part + 2].mean((1, 2))
        torch.testing.assert_close(output.id_tokens[:, 3 + part], stripe)
    plain = build(small_cfg())
    plain.load_state_dict(encoder.state_dict())  # they need no weights
    for found, expected in zip(plain(images), (*output[:2], output.id_tokens[:, :3]), strict=True):
        assert torch.equal(found, expected)


def test_stripes_that_are_not_equal_are_refused():
    with pytest.raises(UserError, match="PART_TOKENS is 3; the 8 rows .*use one of 1, 2, 4, 8, or 0"):
        build(small_cfg(PART_TOKENS=3))


@torch.no_grad()
def test_without_attention_in_the_last_block_the_features_are_timms():
    """Attention is the only way from the view prompt to the class token."""
    encoder = build(small_cfg())
    images = torch.randn(2, 3, 64, 32)
    assert not torch.allclose(encoder(images).features, timm_twin(encoder).forward_features(images)[:, 0])
    torch.nn.init.zeros_(encoder.blocks[-1].attn.proj.weight)
    output = encoder(images)
    torch.testing.assert_close(output.features, timm_twin(encoder).forward_features(images)[:, 0])
    torch.testing.assert_close(output.view_token[0], output.view_token[1])  # nothing of the images in it


def test_the_view_prompt_learns_from_both_outputs():
    encoder = build(small_cfg())
    output = encoder(torch.randn(2, 3, 64, 32))
    for part in (output.features, output.view_token):
        (gradient,) = torch.autograd.grad(part.square().sum(), encoder.view_prompt, retain_graph=True)
        assert gradient.abs().max() > 0
    (gradient,) = torch.autograd.grad(output.id_tokens.sum(), encoder.view_prompt, allow_unused=True)
    assert gradient is None


@pytest.mark.parametrize(
    "backend", [pytest.param("eager", id="traced"), pytest.param("inductor", marks=pytest.mark.slow)]
)
def test_a_compiled_encoder_computes_the_same_under_the_same_names(monkeypatch, backend):
    """In one piece: nothing of it falls back to Python."""
    compile_it = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_it(module, backend=backend, fullgraph=True)
    )
    cfg = small_cfg(NUM_LAYERS=2)
    plain = build_backbone(cfg).eval()
    cfg.MODEL.BACKBONE.COMPILE = True
    compiled = build_backbone(cfg).eval()
    compiled.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 32)
    results = []
    for encoder in (plain, compiled):
        outputs = encoder(images)
        sum(output.square().mean() for output in outputs).backward()
        results.append((*outputs, *(parameter.grad for parameter in encoder.parameters())))
    assert compiled._compiled_call_impl is not None
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_a_model_without_numbers_is_not_compiled():
    cfg = small_cfg(COMPILE=True)
    cfg.MODEL.SDMODEL.VIEW_NUM = cfg.MODEL.HEADS.NUM_CLASSES = 2
    assert build_meta_model(cfg).backbone._compiled_call_impl is None


@pytest.mark.parametrize(("depth", "width"), [("tiny", 192), ("small", 384), ("base", 768), ("large", 1024)])
def test_presets_have_timms_parameters(depth, width):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.DEPTH = depth
    cfg.MODEL.BACKBONE.FEAT_DIM = width
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [224, 224]
    with torch.device("meta"):
        encoder = BACKBONE_REGISTRY.get("build_vit_backbone")(cfg)
    reference = timm.create_model(f"vit_{depth}_patch16_224", num_classes=0, weight_init="skip")
    own = {key: value.shape for key, value in encoder.state_dict().items()}
    assert own.pop("view_prompt") == (1, 1, width)
    assert own == {key: value.shape for key, value in reference.state_dict().items()}
    assert [block.attn.num_heads for block in encoder.blocks] == [
        block.attn.num_heads for block in reference.blocks
    ]


def test_one_seed_gives_one_initialisation():
    first, second = (build(small_cfg(), seed).state_dict() for seed in (3, 3))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_tokens_start_small_and_the_view_prompt_at_zero():
    encoder = ViewPromptTransformer(depth=2)
    for name in ("cls_token", "pos_embed"):
        assert getattr(encoder, name).std().item() == pytest.approx(0.02, rel=0.2)
    assert (encoder.view_prompt == 0).all()


def test_drop_path_grows_linearly_and_rests_in_evaluation():
    encoder = build(small_cfg(DROP_PATH_RATIO=0.3))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    images = torch.randn(4, 3, 64, 32)
    torch.testing.assert_close(encoder(images).features, encoder(images).features, rtol=0, atol=0)
    encoder.train()
    assert not torch.allclose(encoder(images).features, encoder(images).features)


def test_under_autocast_the_outputs_stay_float32_and_close():
    encoder = build(small_cfg())
    images = torch.randn(2, 3, 64, 32)
    expected = encoder(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = encoder(images)
    for part, reference in zip(output, expected, strict=True):
        assert part.dtype == torch.float32
        assert F.cosine_similarity(part.flatten(1), reference.flatten(1)).min() > 0.99


# ------------------------------------------------------------------------------------- patches and the stem
@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    stride=st.tuples(st.sampled_from([4, 8]), st.sampled_from([4, 8])),
    stem=st.booleans(),
)
def test_the_grid_is_what_the_convolutions_give(height, width, stride, stem):
    embed = PatchEmbed((height, width), 8, stride, 8, conv_stem=stem).eval()
    rows, columns = embed.grid_size
    maps = embed.proj(embed.stem(torch.zeros(1, 3, height, width)))
    assert maps.shape[-2:] == (rows, columns)
    assert embed(torch.zeros(1, 3, height, width)).shape == (1, rows * columns, 8)


def test_overlapping_patches_are_shifted_windows():
    embed = PatchEmbed((32, 16), 8, (4, 4), 16)
    images = torch.randn(1, 3, 32, 16)
    rows, columns = embed.grid_size
    assert (rows, columns) == (7, 3)
    row, column = 5, 2
    window = images[0, :, 4 * row : 4 * row + 8, 4 * column : 4 * column + 8]
    expected = (embed.proj.weight * window).sum((1, 2, 3)) + embed.proj.bias
    torch.testing.assert_close(embed(images)[0, row * columns + column], expected, rtol=1e-4, atol=1e-5)


def test_the_stem_keeps_the_grid_and_has_three_normalised_convolutions():
    plain, stemmed = build(small_cfg()), build(small_cfg(CONV_STEM=True))
    assert stemmed.patch_embed.grid_size == plain.patch_embed.grid_size
    kinds = [type(module) for module in stemmed.patch_embed.stem]
    assert kinds == [torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.ReLU] * 3
    stemmed.train()
    stemmed(torch.randn(4, 3, 64, 32)).features.sum().backward()
    assert stemmed.patch_embed.stem[0].weight.grad.abs().max() > 0


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="128x64"):
        build(small_cfg())(torch.randn(1, 3, 128, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"DEPTH": "bass"}, "Did you mean 'base'"),
        ({"DEPTH": "tiny", "FEAT_DIM": 768}, "set FEAT_DIM to 192"),
        ({"NUM_HEADS": 5}, "multiple of MODEL.BACKBONE.NUM_HEADS 5"),
        ({"NUM_LAYERS": 1}, "at least 2 blocks"),
        ({"STRIDE_SIZE": [8]}, "MODEL.BACKBONE.STRIDE_SIZE"),
        ({"STRIDE_SIZE": [8, 0]}, "MODEL.BACKBONE.STRIDE_SIZE"),
        ({"STRIDE_SIZE": [9, 8]}, "leaves gaps"),
        ({"STRIDE_SIZE": [6, 6], "CONV_STEM": True}, "multiples of 4"),
        ({"PATCH_SIZE": 48, "STRIDE_SIZE": [8, 8]}, "does not fit"),
    ],
)
def test_impossible_settings_are_one_line_errors(options, message):
    def check_and_build() -> None:
        cfg = small_cfg(**options)
        check_config(cfg)
        build(cfg)

    with pytest.raises(UserError, match=message) as caught:
        check_and_build()
    assert "\n" not in str(caught.value)


def test_a_test_size_with_another_grid_is_an_error():
    cfg = small_cfg()
    cfg.INPUT.SIZE_TEST = [128, 64]
    with pytest.raises(UserError, match="INPUT.SIZE_TEST"):
        build(cfg)


# --------------------------------------------------------------------------------------- pretrained weights
@pytest.fixture(scope="module")
def timm_model():
    torch.manual_seed(5)
    return timm.create_model("vit_tiny_patch16_224", pretrained=False).eval()


@pytest.fixture(scope="module")
def timm_file(timm_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vit_tiny.pth"
    torch.save(timm_model.state_dict(), path)
    return path


def tiny_encoder(size=(256, 128), patch=16, stride=(16, 16), width=192, depth=12, heads=3, conv_stem=False):
    return ViewPromptTransformer(size, patch, stride, width, depth, heads, conv_stem).eval()


@torch.no_grad()
def test_a_timm_checkpoint_gives_timms_class_tokens(timm_model, timm_file):
    encoder = tiny_encoder(size=(224, 224))
    report = encoder.load_pretrained(timm_file)
    assert report.missing == ["view_prompt"]
    assert report.left_out == ["head.bias", "head.weight"]
    assert report.resampled == []
    assert len(report.loaded) == len(timm_model.state_dict()) - 2
    images = torch.randn(1, 3, 224, 224)
    class_tokens = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: class_tokens.append(output[:, 0]))
        for block in timm_model.blocks
    ]
    timm_model(images)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(encoder(images).id_tokens[:, -1], class_tokens[-2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_wrapped_state_dicts_load_too(timm_model, tmp_path, wrapper):
    path = tmp_path / "wrapped.pth"
    torch.save({wrapper: timm_model.state_dict(), "epoch": 300}, path)
    encoder = tiny_encoder()
    encoder.load_pretrained(path)
    assert torch.equal(encoder.blocks[7].mlp.fc1.weight, timm_model.blocks[7].mlp.fc1.weight)


def test_safetensors_load_too(timm_model, tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(timm_model.state_dict(), path)
    encoder = tiny_encoder()
    encoder.load_pretrained(path)
    assert torch.equal(encoder.blocks[7].attn.qkv.bias, timm_model.blocks[7].attn.qkv.bias)


@pytest.mark.parametrize("stride", [(16, 16), (12, 12)])
def test_position_embeddings_are_resampled_bilinearly_to_the_grid(timm_model, tmp_path, stride):
    state = timm_model.state_dict()
    embeddings = torch.randn(1, 1 + 14 * 14, 192)
    torch.save(state | {"pos_embed": embeddings}, tmp_path / "noise.pth")

    encoder = tiny_encoder(stride=stride)
    report = encoder.load_pretrained(tmp_path / "noise.pth")
    assert report.resampled == ["pos_embed"]
    rows, columns = encoder.patch_embed.grid_size
    square = embeddings[:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
    grid = F.interpolate(square, (rows, columns), mode="bilinear", align_corners=False, antialias=False)
    expected = torch.cat([embeddings[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(encoder.pos_embed.data, expected)


def test_a_grid_with_as_many_patches_as_the_files_is_resampled_all_the_same(timm_file):
    encoder = tiny_encoder(size=(28 * 16, 7 * 16))
    assert encoder.load_pretrained(timm_file).resampled == ["pos_embed"]


def test_a_file_of_this_grid_loads_as_it_is(tmp_path):
    source, encoder = tiny_encoder(depth=2), tiny_encoder(depth=2)
    torch.save(source.state_dict(), tmp_path / "own.pth")
    report = encoder.load_pretrained(tmp_path / "own.pth")
    assert (report.missing, report.resampled, report.left_out) == ([], [], [])
    assert torch.equal(encoder.pos_embed, source.pos_embed)
    assert torch.equal(encoder.view_prompt, source.view_prompt)


@torch.no_grad()
def test_a_larger_patch_sees_an_enlarged_patch_as_before(timm_model, timm_file):
    encoder = tiny_encoder(patch=32, stride=(32, 32))
    report = encoder.load_pretrained(timm_file)
    assert report.resampled == ["patch_embed.proj.weight", "pos_embed"]
    patch = torch.randn(1, 3, 16, 16)
    enlarged = F.interpolate(patch, size=(32, 32), mode="bicubic", antialias=True)
    expected = timm_model.patch_embed.proj(patch)
    torch.testing.assert_close(encoder.patch_embed.proj(enlarged), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"width": 384, "heads": 6}, r"cls_token is \(1, 1, 192\) instead of \(1, 1, 384\)"),
        ({"depth": 13}, r"blocks\.12\.norm1\.weight of shape \(192,\) is missing"),
        ({"depth": 11}, r"the encoder has no blocks\.11\."),
        ({"conv_stem": True}, r"patch_embed\.stem\.0\.weight .*CONV_STEM"),
    ],
)
def test_a_file_of_another_model_names_the_first_misfit(timm_file, options, problem):
    encoder = tiny_encoder(**options)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(UserError, match=problem) as caught:
        encoder.load_pretrained(timm_file)
    assert "\n" not in str(caught.value)
    assert str(timm_file) in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_position_embeddings_of_no_known_grid_are_an_error(timm_model, tmp_path):
    state = timm_model.state_dict()
    torch.save(state | {"pos_embed": torch.zeros(1, 1 + 190, 192)}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="pos_embed has 190 patches"):
        tiny_encoder().load_pretrained(tmp_path / "odd.pth")


def test_a_missing_file_says_what_to_download_and_where_to_put_it(tmp_path):
    path = tmp_path / "nowhere.pth"
    encoder = ViewPromptTransformer((32, 16), depth=2)
    with pytest.raises(UserError) as caught:
        encoder.load_pretrained(path)
    for part in (str(path), "jx_vit_base_p16_224-80ecf9dd.pth", "MODEL.BACKBONE.PRETRAIN_PATH"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors", "empty.pth", "list.pth", "cut.pth"])
def test_an_unreadable_file_is_one_line(tmp_path, timm_file, name):
    path = tmp_path / name
    if name.startswith("page"):
        path.write_text("<html>Not Found</html>")
    elif name == "empty.pth":
        path.touch()
    elif name == "list.pth":
        torch.save([1, 2], path)
    else:
        content = timm_file.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=name) as caught:
        tiny_encoder(depth=2).load_pretrained(path)
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"model": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth"):
        tiny_encoder(depth=2).load_pretrained(tmp_path / "evil.pth")
    assert not (tmp_path / "written").exists()
