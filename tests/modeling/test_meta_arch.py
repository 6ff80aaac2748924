"""Both stages as whole models: shapes, losses against independent computations, what trains."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fastreid.modeling import build_model
from fastreid.modeling.meta_arch.sdreid.stage2 import cross_view_targets
from fastreid.utils import comm


class TestStage1:
    @pytest.mark.parametrize("views", [2, 3])
    def test_losses_are_identity_plus_triplet_plus_weighted_view(self, tiny_cfg, make_batch, views):
        cfg = tiny_cfg(views, "MODEL.LOSSES.CE.VIEW_LAMBDA", "0.3", "MODEL.BACKBONE.DROP_PATH_RATIO", "0.0")
        model, batch = build_model(cfg), make_batch(views)
        losses = copy.deepcopy(model)(batch)
        assert set(losses) == {"loss_cls", "loss_triplet", "loss_view"}

        encoded = model.backbone((batch["images"].float() - 127.5) / 127.5)
        logits = model.heads.bottleneck(encoded.features) @ model.heads.weight.T
        view_logits = model.view_heads.bottleneck(encoded.view_token) @ model.view_heads.weight.T
        assert view_logits.shape == (len(batch["images"]), views)
        torch.testing.assert_close(losses["loss_cls"], F.cross_entropy(logits, batch["targets"]))
        torch.testing.assert_close(losses["loss_view"], 0.3 * F.cross_entropy(view_logits, batch["viewids"]))
        expected = batch_hard_soft_margin(encoded.features, batch["targets"])
        torch.testing.assert_close(losses["loss_triplet"], expected, atol=1e-4, rtol=1e-4)

    def test_the_memory_bank_holds_the_mean_view_token_of_each_view(self, tiny_cfg, make_batch):
        model, batch = build_model(tiny_cfg(3, "MODEL.BACKBONE.DROP_PATH_RATIO", "0.0")), make_batch(3)
        tokens = model.encode(batch).view_token
        model(batch)
        for view in range(3):
            expected = tokens[batch["viewids"] == view].mean(0)
            torch.testing.assert_close(model.memory_bank.prototypes[view], expected)

    def test_the_view_head_can_be_left_out(self, tiny_cfg, make_batch):
        losses = build_model(tiny_cfg(2, "MODEL.LOSSES.CE.VIEW_ID", "False"))(make_batch())
        assert set(losses) == {"loss_cls", "loss_triplet"}

    def test_the_test_feature_is_the_post_neck_feature(self, tiny_cfg, make_batch):
        model, batch = build_model(tiny_cfg()), make_batch()
        model(batch)  # moves the neck's statistics
        model.eval()
        features = model(batch)
        neck = model.heads.bottleneck[0]
        person = model.encode(batch).features
        expected = (person - neck.running_mean) / (neck.running_var + neck.eps).sqrt() * neck.weight
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("MODEL.LOSSES.CE.VIEW_ID", "False"),
            ("MODEL.LOSSES.NAME", "['TripletLoss']"),
            ("MODEL.LOSSES.NAME", "['TripletLoss']", "MODEL.HEADS.NECK_FEAT", "after"),
            ("MODEL.LOSSES.NAME", "['CrossEntropyLoss']", "MODEL.HEADS.EMBEDDING_DIM", "32"),
        ],
    )
    def test_every_part_that_trains_receives_gradients(self, tiny_cfg, make_batch, options):
        """Several processes would wait for those of the others without end."""
        model = build_model(tiny_cfg(2, *options))
        sum(model(make_batch()).values()).backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name


class TestStage2:
    @pytest.mark.parametrize("views", [2, 3])
    def test_the_retrieval_feature_is_the_person_joined_with_every_view(self, stage2, make_batch, views):
        model, batch = stage2(views).eval(), make_batch(views)
        features = model(batch)
        assert features.shape == (len(batch["images"]), 128 * (1 + views))
        encoded = model.encode(batch)
        person, generated = features[:, :128], features[:, 128:].unflatten(1, (views, 128))
        torch.testing.assert_close(person, model.heads(encoded.features))
        expected = model.generator.generate(
            encoded.id_tokens, model.memory_bank.prototypes, batch["img_paths"]
        )
        torch.testing.assert_close(generated, expected)

    def test_weighted_fusion_joins_parts_of_length_1_and_of_the_weight(self, stage2, make_batch):
        plain, batch = stage2(2).eval(), make_batch(2)
        model = stage2(2, "TEST.SDMODEL.FUSION", "weighted", "TEST.SDMODEL.VIEW_WEIGHT", "0.5").eval()
        model.load_state_dict(plain.state_dict())
        parts, weighted = (each(batch).unflatten(1, (3, 128)) for each in (plain, model))
        expected = parts / parts.square().sum(-1, keepdim=True).sqrt() * torch.tensor([1, 0.5, 0.5])[:, None]
        torch.testing.assert_close(weighted, expected)

    def test_generated_features_may_pass_the_neck(self, stage2, make_batch):
        model, batch = stage2(2).eval(), make_batch(2)
        neck = model.heads.bottleneck[0]
        neck.running_mean.normal_()
        neck.running_var.uniform_(0.5, 2)
        before = model(batch)
        with_neck = stage2(2, "TEST.SDMODEL.GENERATED_NECK", "True").eval()
        with_neck.load_state_dict(model.state_dict())
        after = with_neck(batch)
        assert torch.equal(after[:, :128], before[:, :128])
        scale = neck.weight / (neck.running_var + neck.eps).sqrt()
        expected = (before[:, 128:].unflatten(1, (2, 128)) - neck.running_mean) * scale
        torch.testing.assert_close(after[:, 128:], expected.flatten(1), atol=1e-4, rtol=1e-4)

    def test_an_images_feature_does_not_depend_on_its_batch(self, stage2, make_batch):
        model, batch = stage2().eval(), make_batch()
        together = model(batch)
        one = {key: value[5:6] for key, value in batch.items()}
        torch.testing.assert_close(model(one), together[5:6], atol=1e-4, rtol=1e-4)

    def test_frozen_parts_stay_in_eval_mode_and_unchanged(self, stage2, make_batch):
        model = stage2(2, "MODEL.BACKBONE.DROP_PATH_RATIO", "0.5").train()
        assert not any(module.training for module in model.backbone.modules())
        assert not any(module.training for module in model.heads.modules())
        before = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model(make_batch())["loss_noise"].backward()
        optimizer.step()
        changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        assert changed
        for key in changed:
            trained_unet = ".attn2.to_k." in key or ".attn2.to_v." in key
            assert key.startswith(("generator.condition_learner.", "generator.view_refined_decoder.")) or (
                key.startswith("generator.unet.up_blocks.") and trained_unet
            ), key

    def test_every_trainable_parameter_is_used_in_every_step(self, stage2, make_batch):
        """Distributed training counts on it: the null context too, whether or not a sample drew it."""
        model = stage2(2, "MODEL.SDMODEL.U_COND_PERCENT", "0.0").train()
        model(make_batch())["loss_noise"].backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name

    def test_statistics_are_those_of_the_training_images(self, stage2, make_batch):
        class TrainSet:
            samples = [0, 1, 2]

        standardize = ["MODEL.SDMODEL.STANDARDIZE_LATENT", "True", "MODEL.SDMODEL.STANDARDIZE_TOKENS", "True"]
        model = stage2(2, *standardize)
        batches = [make_batch(seed=seed) for seed in range(3)]
        model.on_train_start(TrainSet(), lambda samples: [batches[index] for index in samples])
        features = torch.cat([model.encode(batch).features for batch in batches])
        torch.testing.assert_close(model.generator.codec.mean, features.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            model.generator.codec.std, features.std(0, correction=0), atol=1e-5, rtol=1e-3
        )
        tokens = torch.cat([model.encode(batch).id_tokens for batch in batches])
        learner = model.generator.condition_learner
        torch.testing.assert_close(learner.token_mean, tokens.mean(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(learner.token_std, tokens.std(0, correction=0), atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("skips", [False, True])
    def test_statistics_are_the_same_to_the_last_bit_on_one_rank_and_on_three(
        self, stage2, make_batch, monkeypatch, skips
    ):
        """Each encodes its share, unless the choice of what replaces a bad image would depend on it."""
        standardize = ["MODEL.SDMODEL.STANDARDIZE_LATENT", "True", "MODEL.SDMODEL.STANDARDIZE_TOKENS", "True"]
        options = [*standardize, "MODEL.SDMODEL.TARGET", "identity_mean", "TEST.IMS_PER_BATCH", "12"]
        options += ["DATALOADER.ON_BAD_IMAGE", "skip" if skips else "error"]
        images = [make_batch(seed=seed) for seed in range(7)]  # batches of 12
        encoded, shares = [], []

        def fitted(rank: int, ranks: int, gather) -> dict[str, torch.Tensor]:
            model, train_set = stage2(2, *options), SimpleNamespace(samples=list(range(7 * 12)))
            with monkeypatch.context() as patch:
                patch.setattr(comm, "get_rank", lambda: rank)
                patch.setattr(comm, "get_world_size", lambda: ranks)
                patch.setattr(comm, "all_gather_object", gather)
                model.on_train_start(train_set, lambda samples: [take(n // 12) for n in samples[::12]])
            return model.state_dict()

        def take(number: int) -> dict:
            encoded.append(number)
            return images[number]

        alone = fitted(0, 1, lambda own: [own])
        encoded.clear()
        for rank in range(3):
            fitted(rank, 3, lambda own: shares.append(own) or [own])
        assert sorted(encoded) == sorted(list(range(7)) * (3 if skips else 1))
        together = fitted(2, 3, lambda own: shares)
        fit = [name for name in alone if name.endswith(("mean", "std", "means")) and "heads" not in name]
        assert len(fit) == 5
        assert all(torch.equal(together[name], alone[name]) for name in fit)

    def test_same_image_targets_are_the_papers_and_cross_view_is_a_setting(self, stage2, make_batch):
        model, batch = stage2().train(), make_batch()
        seen = {}

        def record(module, args, kwargs, output):
            seen.update(kwargs)

        model.generator.register_forward_hook(record, with_kwargs=True)
        model(batch)
        encoded = model.encode(batch)
        torch.testing.assert_close(seen["targets"], encoded.features)
        torch.testing.assert_close(seen["view_tokens"], encoded.view_token)
        torch.testing.assert_close(seen["prototypes"], model.memory_bank.prototypes[batch["viewids"]])

        model.cross_view = (
            True  # 6 identities with one image in each of two views: the other one is the target
        )
        model(batch)
        partner = torch.arange(12) ^ 1
        torch.testing.assert_close(seen["id_tokens"], encoded.id_tokens)
        torch.testing.assert_close(seen["targets"], encoded.features[partner])
        torch.testing.assert_close(
            seen["prototypes"], model.memory_bank.prototypes[batch["viewids"][partner]]
        )

    def test_token_mixing_takes_tokens_from_another_image_of_the_identity(self, stage2, make_batch):
        model, batch = stage2(2, "MODEL.SDMODEL.TOKEN_MIXING", "0.4").train(), make_batch()
        seen = {}

        def record(module, args, kwargs, output):
            seen.update(kwargs)

        model.generator.register_forward_hook(record, with_kwargs=True)
        own = model.encode(batch).id_tokens
        partner = torch.arange(12) ^ 1  # 6 identities with two images each
        shares = []
        for _ in range(40):
            model(batch)
            taken = (seen["id_tokens"] == own[partner]).all(2)
            assert (taken | (seen["id_tokens"] == own).all(2)).all()
            shares.append(taken.float().mean().item())
        assert sum(shares) / 40 == pytest.approx(0.4, abs=0.05)


class TestCrossViewTargets:
    def test_views_are_drawn_evenly_whatever_their_number_of_images(self):
        # Identity 0 has image 0 in view 0, image 1 in view 1 and images 2 to 7 in view 2.
        targets, views = torch.zeros(8, dtype=torch.long), torch.tensor([0, 1, 2, 2, 2, 2, 2, 2])
        chosen = torch.stack([cross_view_targets(targets, views, torch.arange(8)) for _ in range(4000)])
        assert (chosen != torch.arange(8)).all()
        from_first = views[chosen[:, 0]]
        assert (from_first == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)
        from_third = views[chosen[:, 2]]
        for view in range(3):
            assert (from_third == view).float().mean().item() == pytest.approx(1 / 3, abs=0.03)

    def test_identities_never_mix_and_a_lone_image_is_its_own_target(self):
        targets, views = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 0, 1, 1])
        assert cross_view_targets(targets, views, torch.arange(4)).tolist() == [2, 1, 0, 3]

    def test_a_second_copy_of_an_image_is_not_another_image(self):
        """An identity with fewer images than NUM_INSTANCE fills its place in the batch with copies."""
        targets, views = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 1, 0, 1, 0, 0])
        for _ in range(50):
            chosen = cross_view_targets(targets, views, torch.tensor([5, 6, 5, 6, 7, 7]))
            assert (views[chosen[:4]] != views[:4]).all()
            assert chosen[4:].tolist() == [4, 5]


def batch_hard_soft_margin(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Each anchor's farthest positive against its nearest negative, one anchor at a time."""
    terms = []
    for anchor in range(len(features)):
        distances = (features - features[anchor]).square().sum(1).sqrt()
        positives = [
            distances[i] for i in range(len(targets)) if targets[i] == targets[anchor] and i != anchor
        ]
        negatives = [distances[i] for i in range(len(targets)) if targets[i] != targets[anchor]]
        terms.append(F.softplus(max(positives) - min(negatives)))
    return torch.stack(terms).mean()
