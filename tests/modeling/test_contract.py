"""The contract of a method: what a registry refuses, and what the two stages say of themselves."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from toy_conditions import DIM

from fastreid.config import check_config
from fastreid.data.samplers import SAMPLER_REGISTRY, BatchSampler
from fastreid.modeling import META_ARCH_REGISTRY, MetaArch, build_model, fit_config
from fastreid.modeling.assets import required_weights, starting_weights
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.heads import CLS_LAYER_REGISTRY, REID_HEADS_REGISTRY, EmbeddingHead
from fastreid.modeling.losses import LOSS_REGISTRY
from fastreid.modeling.meta_arch import SDReIDStage1, SDReIDStage2
from fastreid.modeling.weights import load_model_weights
from fastreid.structures import DataNames, EncoderOutput
from fastreid.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("own_names")


class Complete(MetaArch):
    """The least that a method says."""

    def encode(self, batch): ...

    def losses(self, encoded, batch): ...


class Plain(MetaArch):
    """The losses of the configuration, on what the backbone gives."""

    def encode(self, batch):
        return self.backbone(self.pixels(batch))

    def losses(self, encoded, batch):
        return self.identity_losses(self.heads(encoded[0], batch["targets"]), batch["targets"])


def method(**parts) -> type:
    return type("Own", (Complete,), parts)


class TestRegistration:
    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            (method(encode=MetaArch.encode), "Own has no encode of its own"),
            (method(losses=MetaArch.losses), "Own has no losses of its own"),
            (
                method(encode=MetaArch.encode, losses=MetaArch.losses),
                "Own has no encode and no losses of its own",
            ),
            (
                method(test_labels=frozenset({"camids", "weather"})),
                "test_labels name 'weather'; known: camids, viewids",
            ),
            (method(test_labels=frozenset({"targets"})), "test_labels name 'targets'"),
            (method(__init__=lambda self, cfg: None), "Own is not made by .cfg, names., two arguments"),
            (type("Own", (nn.Module,), {}), "derived from MetaArch"),
            (lambda cfg: None, "derived from MetaArch"),
        ],
    )
    def test_a_method_without_a_part_is_refused_by_the_parts_name(self, entry, said):
        with pytest.raises(UserError, match=f"'Own' cannot be registered: .*{said}"):
            META_ARCH_REGISTRY.register("Own", entry)
        assert "Own" not in META_ARCH_REGISTRY

    def test_a_method_that_keeps_the_contract_is_known_at_once(self, tiny_cfg):
        META_ARCH_REGISTRY.register("Own", method(test_labels=frozenset({"camids", "viewids"})))
        cfg = tiny_cfg(2, "MODEL.META_ARCHITECTURE", "Own", "DATALOADER.NUM_WORKERS", "0")
        check_config(cfg)

    @pytest.mark.parametrize(
        ("registry", "said"),
        [
            (LOSS_REGISTRY, "it has no logged_as, compares_pairs, needs_classifier, from_config"),
            (REID_HEADS_REGISTRY, "a head is a Module"),
            (CLS_LAYER_REGISTRY, "it has no similarity"),
            (SAMPLER_REGISTRY, "it has no by_identity, check_batch_size"),
        ],
    )
    def test_other_parts_are_refused_too(self, registry, said):
        with pytest.raises(UserError, match=f"'Own' cannot be registered: {said}"):
            registry.register("Own", type("Own", (), {}))


class TestResults:
    """What a method gives is looked at, so that a mistake is a line that names it."""

    @pytest.fixture
    def own(self, tiny_cfg, make_batch):
        """Make a method with these parts and give its result for a batch."""

        def call(training: bool = True, **parts):
            name = f"Own{len(list(META_ARCH_REGISTRY))}"
            META_ARCH_REGISTRY.register(name, type(name, (SDReIDStage1,), parts))
            model = build_model(tiny_cfg(2, "MODEL.META_ARCHITECTURE", name))
            return model.train(training)(make_batch())

        return call

    @pytest.mark.parametrize("result", [torch.ones(8, DIM), (torch.ones(8),), ()])
    def test_encoded_images_are_a_tuple_that_begins_with_vectors(self, own, result):
        with pytest.raises(UserError, match=r"encode of Own\d+ gives a .*; return a NamedTuple"):
            own(encode=lambda self, batch: result)

    @pytest.mark.parametrize(
        ("result", "said"),
        [
            ([torch.ones((), requires_grad=True)], "losses of Own\\d+ gives a list"),
            ({}, "losses of Own\\d+ gives a dict"),
            (torch.ones(()), r"losses of Own\d+ gives a tensor \(\)"),
            ({"loss_a": 1.0}, "losses of Own\\d+ gives 'loss_a': a float"),
            ({"loss_a": torch.ones(8)}, r"losses of Own\d+ gives 'loss_a': a tensor \(8,\)"),
            ({"a": torch.ones(())}, r"losses of Own\d+ gives 'a': .* begin with loss_"),
            ({"loss_a": torch.ones(())}, "no loss of Own\\d+ depends on what it trains"),
        ],
    )
    def test_losses_are_scalars_by_name(self, own, result, said):
        with pytest.raises(UserError, match=said):
            own(losses=lambda self, encoded, batch: result)

    def test_features_are_as_wide_as_their_parts_say(self, own):
        said = rf"features of Own\d+ gives a tensor \(\d+, {DIM}\), but its feature_parts are person 7; make"
        with pytest.raises(UserError, match=said):
            own(training=False, feature_parts=lambda self: {"person": 7})

    def test_a_head_reads_features_of_the_width_it_is_made_for(self):
        with pytest.raises(UserError, match="made for features of 12 numbers and gets 10; let the feat_dim"):
            EmbeddingHead(12, 3)(torch.ones(2, 10))

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_sampler_says_whether_batches_are_of_whole_identities(self, tiny_cfg, whole):
        SAMPLER_REGISTRY.register("Own", type("Own", (BatchSampler,), {"by_identity": whole}))
        options = ("SOLVER.IMS_PER_BATCH", "10", "DATALOADER.NUM_INSTANCE", "4")
        cfg = tiny_cfg(2, *options, "DATALOADER.SAMPLER_TRAIN", "Own")
        with pytest.raises(UserError, match="use a multiple of 4") if whole else nullcontext():
            check_config(cfg)

    def test_no_loss_hides_another(self, tiny_cfg):
        cfg = tiny_cfg(2, "MODEL.LOSSES.NAME", "['TripletLoss', 'TripletLoss']")
        with pytest.raises(UserError, match="logged as loss_triplet, loss_triplet: one would hide the other"):
            build_model(cfg)


class TestViewsOfOtherData:
    """A method that reads views takes those that it was trained on by their numbers."""

    @pytest.fixture
    def model(self, tiny_cfg):
        def make(labels: frozenset[str]) -> MetaArch:
            name = f"Own{len(labels)}"
            META_ARCH_REGISTRY.register(name, type(name, (SDReIDStage1,), {"test_labels": labels}))
            return build_model(
                tiny_cfg(2, "MODEL.META_ARCHITECTURE", name), DataNames(views=("drone", "ground"))
            )

        return make

    @pytest.mark.parametrize(
        "views", [("drone", "ground"), ("aerial", "cctv"), ("drone",), ("kite", "ground")]
    )
    def test_strangers_pass_with_a_warning(self, model, views, caplog_fastreid):
        model(frozenset({"viewids"})).check_views(views, "mine.csv")
        strangers = [name for name in views if name not in ("drone", "ground")]
        assert all(f"{name} has the number of " in caplog_fastreid.text for name in strangers)
        assert bool(caplog_fastreid.text) == bool(strangers)

    @pytest.mark.parametrize("views", [("ground", "zeppelin"), ("ground",), ("a", "drone", "ground")])
    def test_one_that_has_another_number_is_refused(self, model, views):
        with pytest.raises(UserError, match=r"views drone, ground and reads them, but mine.csv has .*as in"):
            model(frozenset({"viewids"})).check_views(views, "mine.csv")
        model(frozenset()).check_views(views, "mine.csv")


class Narrow(nn.Module):
    """An encoder of width 64, under a configuration that speaks of 768."""

    feat_dim, num_id_tokens = 64, 3

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(3, self.feat_dim)

    def forward(self, images):
        features = self.project(images.mean((2, 3)))
        return EncoderOutput(features, features + 1, features[:, None].expand(-1, 3, -1))


class TestBackbones:
    @pytest.mark.parametrize("name", ["SDReIDStage1", "SDReIDStage2"])
    def test_one_of_another_width_trains_and_evaluates(self, tiny_cfg, make_batch, name):
        BACKBONE_REGISTRY.register("narrow", lambda cfg: Narrow())
        cfg = tiny_cfg(2, "MODEL.META_ARCHITECTURE", name, "MODEL.BACKBONE.NAME", "narrow")
        cfg.MODEL.BACKBONE.FEAT_DIM = 768
        check_config(cfg, training=False)
        model, batch = build_model(cfg), make_batch()
        sum(model.train()(batch).values()).backward()
        features = model.eval()(batch)
        assert features.shape == (len(batch["images"]), sum(model.feature_parts().values()))
        assert set(model.feature_parts().values()) == {64}

    def test_one_without_pretrained_weights_says_so(self, tiny_cfg):
        BACKBONE_REGISTRY.register("narrow", lambda cfg: Narrow())
        options = ("MODEL.BACKBONE.NAME", "narrow", "MODEL.BACKBONE.PRETRAIN", "True")
        with pytest.raises(UserError, match="PRETRAIN is True, but narrow loads no pretrained weights"):
            build_model(tiny_cfg(2, *options)).load_pretrained()
        (weights,) = SDReIDStage1.assets(tiny_cfg(2, *options), training=True)
        with pytest.raises(UserError, match="narrow loads no .*load_pretrained and check_pretrained"):
            weights.check_contents(build_model(tiny_cfg(2, *options)))

    def test_its_own_width_is_what_a_unet_folder_must_fit(self, tiny_cfg, tmp_path):
        BACKBONE_REGISTRY.register("narrow", lambda cfg: Narrow())
        (tmp_path / "config.json").write_text('{"cross_attention_dim": 64}')
        key = "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH"
        cfg = tiny_cfg(2, "MODEL.BACKBONE.NAME", "narrow", key, str(tmp_path))
        (folder,) = (
            asset for asset in SDReIDStage2.assets(cfg, training=False) if asset.name == "UNet folder"
        )
        assert "width 64" in folder.check()
        cfg.MODEL.BACKBONE.NAME = "build_vit_backbone"
        with pytest.raises(UserError, match=f"cross_attention_dim is 64 .*width {DIM} need"):
            folder.check()

    def test_one_that_does_not_say_its_width_is_refused(self, tiny_cfg):
        BACKBONE_REGISTRY.register("mute", lambda cfg: nn.Linear(3, 64))
        with pytest.raises(UserError, match="MODEL.BACKBONE.NAME mute: Linear does not say .*feat_dim"):
            build_model(tiny_cfg(2, "MODEL.BACKBONE.NAME", "mute"))


class TestHeads:
    class Mute(EmbeddingHead):
        """It does not say how wide its feature is."""

        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            del self.embedding_dim

    def test_one_that_does_not_say_its_width_is_refused(self, tiny_cfg):
        REID_HEADS_REGISTRY.register("mute", self.Mute)
        with pytest.raises(UserError, match="MODEL.HEADS.NAME mute: Mute does not say .*embedding_dim"):
            build_model(tiny_cfg(2, "MODEL.HEADS.NAME", "mute"))

    def test_any_method_waits_for_no_gradients_that_its_losses_do_not_give(self, tiny_cfg, make_batch):
        """Several processes would wait for them for ever."""
        META_ARCH_REGISTRY.register("Own", Plain)
        options = ("MODEL.META_ARCHITECTURE", "Own", "MODEL.LOSSES.NAME", '["TripletLoss"]')
        model = build_model(tiny_cfg(2, *options)).train()
        sum(model(make_batch()).values()).backward()
        assert all(p.grad is not None for p in model.heads.parameters() if p.requires_grad)


class TestWidths:
    """They are those of the features, by the names of the parts."""

    @pytest.mark.parametrize("neck", ["False", "True"])
    @pytest.mark.parametrize("reduced", [0, 32])
    def test_the_parts_have_the_widths_that_they_say(self, tiny_cfg, make_batch, neck, reduced):
        options = ["MODEL.HEADS.EMBEDDING_DIM", str(reduced)]
        if neck == "True" and reduced:
            options += ["MODEL.HEADS.WITH_BNNECK", "True"]
        options += ["MODEL.META_ARCHITECTURE", "SDReIDStage2", "TEST.SDMODEL.GENERATED_NECK", neck]
        model = build_model(tiny_cfg(2, *options), DataNames(views=("aerial", "ground"))).eval()
        batch, parts = make_batch(), model.feature_parts()
        assert list(parts) == ["person", "aerial", "ground"]
        assert parts["person"] == (reduced or DIM)
        whole = model(batch)
        assert whole.shape[1] == sum(parts.values())
        pieces = dict(zip(parts, whole.split(list(parts.values()), dim=1), strict=True))
        for chosen in (["ground"], ["person"], ["ground", "aerial"], ["person", "ground"]):
            expected = torch.cat([pieces[name] for name in chosen], dim=1)
            torch.testing.assert_close(model(batch, chosen), expected, atol=1e-4, rtol=1e-4)

    def test_views_that_nobody_has_named_are_numbered(self, tiny_cfg):
        model = build_model(
            tiny_cfg(3, "MODEL.META_ARCHITECTURE", "SDReIDStage2"), DataNames(views=("aerial",))
        )
        assert list(model.feature_parts()) == ["person", "aerial", "view 1", "view 2"]


class TestData:
    def test_what_it_decides_is_filled_in(self, tiny_cfg):
        cfg = tiny_cfg(0)
        cfg.MODEL.HEADS.NUM_CLASSES = 0
        fitted = fit_config(cfg, 7, ("aerial", "ground", "wearable"))
        assert (fitted.MODEL.HEADS.NUM_CLASSES, fitted.MODEL.SDMODEL.VIEW_NUM) == (7, 3)
        assert fitted.is_frozen()
        assert not cfg.is_frozen()

    def test_fewer_identities_than_there_are_is_an_error_and_more_are_not(self, tiny_cfg):
        assert fit_config(tiny_cfg(2), 5).MODEL.HEADS.NUM_CLASSES == 6
        with pytest.raises(UserError, match="NUM_CLASSES is 6, but .* 7 identities; set it to 0"):
            fit_config(tiny_cfg(2), 7)

    def test_another_number_of_views_is_an_error(self, tiny_cfg):
        with pytest.raises(
            UserError, match=r"VIEW_NUM is 2, but .*3 views \(aerial, ground, wearable\); set it to 3"
        ):
            fit_config(tiny_cfg(2), 6, ("aerial", "ground", "wearable"))

    def test_without_any_number_of_views_there_is_no_model(self, tiny_cfg):
        with pytest.raises(UserError, match="VIEW_NUM is 0, and no data tells it"):
            build_model(tiny_cfg(0))

    def test_weights_tell_it_where_nothing_else_does(self, tiny_cfg):
        cfg = tiny_cfg(0)
        SDReIDStage1.fit_to_weights(cfg, build_model(tiny_cfg(3)).state_dict())
        assert cfg.MODEL.SDMODEL.VIEW_NUM == 3

    @pytest.mark.parametrize("label", ["targets", "viewids"])
    def test_labels_that_pictures_lack_are_named(self, tiny_cfg, make_batch, label):
        batch = make_batch()
        del batch[label]
        with pytest.raises(UserError, match=f"SDReIDStage1 reads the {label} of a picture"):
            build_model(tiny_cfg(2)).train()(batch)


class TestParameterRules:
    @pytest.fixture
    def stages(self, tiny_cfg):
        return (
            build_model(tiny_cfg(2)),
            build_model(tiny_cfg(2, "MODEL.META_ARCHITECTURE", "SDReIDStage2")),
        )

    def test_both_heads_are_heads_and_their_classifiers_serve_training_alone(self, stages):
        for model in stages:
            rules = model.parameter_rules()
            assert rules.heads == ("heads.", "view_heads.")
            state = model.state_dict()
            dropped = {name for name in state if name.startswith(rules.training_only)}
            assert dropped == {"heads.weight", *(name for name in state if name.startswith("view_heads."))}

    def test_stage_2_may_start_without_its_generator_and_nothing_else(self, stages):
        first, second = stages
        load_model_weights(second, first.state_dict(), "train")
        for name in ("backbone.cls_token", "memory_bank.prototypes"):
            lacking = {key: value for key, value in first.state_dict().items() if key != name}
            with pytest.raises(UserError, match=f"lacks 1 of .*{name}"):
                load_model_weights(second, lacking, "train")

    def test_stage_1_may_start_from_anything_that_fits(self, stages):
        first, _ = stages
        backbone = {name: value for name, value in first.state_dict().items() if name.startswith("backbone.")}
        load_model_weights(first, backbone, "train")
        with pytest.raises(UserError, match="lacks .*heads.bottleneck"):
            load_model_weights(first, backbone, "eval")


class TestStart:
    def test_stage_2_starts_from_a_checkpoint_of_stage_1(self, tiny_cfg, tmp_path):
        assert (SDReIDStage1.starts_from, SDReIDStage2.starts_from) == ((), ("SDReIDStage1",))
        cfg = tiny_cfg(2)
        assert required_weights(SDReIDStage1, cfg, training=True) == ""
        said = "MODEL.WEIGHTS is empty: SDReIDStage2 trains from a checkpoint of SDReIDStage1; name its"
        with pytest.raises(UserError, match=said):
            required_weights(SDReIDStage2, cfg, training=True)
        for stage in (SDReIDStage1, SDReIDStage2):
            with pytest.raises(UserError, match="MODEL.WEIGHTS is empty; name a checkpoint"):
                required_weights(stage, cfg, training=False)
        cfg.MODEL.WEIGHTS = "a.pth"
        assert required_weights(SDReIDStage2, cfg, training=True) == "a.pth"

    def test_a_missing_file_says_what_to_train_first(self, tiny_cfg, tmp_path):
        cfg = tiny_cfg(2, "MODEL.WEIGHTS", str(tmp_path / "none.pth"))
        for stage, training, said in (
            (SDReIDStage2, True, "train SDReIDStage1 first, or name its checkpoint"),
            (SDReIDStage2, False, "check the path"),
            (SDReIDStage1, True, "check the path"),
        ):
            with pytest.raises(UserError, match=f"MODEL.WEIGHTS: .*none.pth not found; {said}"):
                starting_weights(stage, cfg, training).check()

    def test_which_files_are_read_depends_on_how_it_starts(self, tiny_cfg):
        def names(stage: str, training: bool, *options: str) -> list[str]:
            cfg = tiny_cfg(2, "MODEL.META_ARCHITECTURE", stage, *options)
            return [asset.name for asset in META_ARCH_REGISTRY.get(stage).assets(cfg, training)]

        pretrained, weights = ("MODEL.BACKBONE.PRETRAIN", "True"), ("MODEL.WEIGHTS", "a.pth")
        assert names("SDReIDStage1", True) == []
        assert names("SDReIDStage1", True, *pretrained) == ["pretrained backbone"]
        assert names("SDReIDStage1", True, *pretrained, *weights) == ["weights"]
        assert names("SDReIDStage1", False, *pretrained) == ["weights"]
        assert names("SDReIDStage2", True, *pretrained) == ["weights"]
        unet = ("MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", "unet")
        assert names("SDReIDStage2", True, *unet) == ["weights", "UNet folder"]
