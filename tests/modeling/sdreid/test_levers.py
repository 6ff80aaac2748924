"""What Stage 2 can do beside the paper, each against a plain computation."""

import pytest
import torch
import torch.nn.functional as F
from toy_conditions import DIM, conditions

from fastreid.config import check_config
from fastreid.modeling.meta_arch.sdreid.training import view_separation_loss
from fastreid.utils.errors import UserError

OWN_VIEW = ["TEST.SDMODEL.GENERATED_NECK", "True", "TEST.SDMODEL.REAL_OWN_VIEW", "True"]


@pytest.fixture
def seen():
    """`seen(model, batch)`: what a training step calls the generator with."""

    def arguments(model, batch) -> dict:
        found = {}
        hook = model.generator.register_forward_hook(
            lambda _, args, kwargs, losses: found.update(kwargs), with_kwargs=True
        )
        model(batch)
        hook.remove()
        return found

    return arguments


class TestRealOwnView:
    @torch.no_grad()
    def test_an_images_own_view_is_its_person_feature(self, stage2, make_batch):
        batch = make_batch(3)
        plain = stage2(3, *OWN_VIEW[:2]).eval()
        model = stage2(
            3, *OWN_VIEW, "TEST.SDMODEL.FUSION", "weighted", "TEST.SDMODEL.VIEW_WEIGHT", "0.5"
        ).eval()
        model.load_state_dict(plain.state_dict())
        person, *generated = plain(batch).split(DIM, dim=1)
        found_person, *found = model(batch).split(DIM, dim=1)
        torch.testing.assert_close(found_person, F.normalize(person))
        for view, (part, expected) in enumerate(zip(found, generated, strict=True)):
            for image, own in enumerate(batch["viewids"].tolist()):
                source = person if own == view else expected
                torch.testing.assert_close(part[image], 0.5 * F.normalize(source[image], dim=0))

    @torch.no_grad()
    def test_parts_are_those_of_the_whole_feature(self, stage2, make_batch):
        model, batch = stage2(2, *OWN_VIEW).eval(), make_batch()
        columns = dict(zip(model.feature_parts(), model(batch).split(DIM, dim=1), strict=True))
        for parts in (["view 1"], ["view 1", "person"], ["view 1", "view 0"]):
            expected = torch.cat([columns[part] for part in parts], dim=1)
            torch.testing.assert_close(model(batch, parts), expected, atol=1e-5, rtol=1e-5)

    def test_views_are_read_and_declared_with_it_alone(self, stage2, make_batch):
        assert stage2(2).test_labels == frozenset()
        model, batch = stage2(2, *OWN_VIEW).eval(), make_batch()
        assert model.test_labels == {"viewids"}
        del batch["viewids"]
        with pytest.raises(UserError, match="SDReIDStage2 reads the viewids"):
            model(batch)

    def test_real_and_generated_features_both_pass_the_neck(self, tiny_cfg):
        cfg = tiny_cfg(2, "MODEL.META_ARCHITECTURE", "SDReIDStage2", *OWN_VIEW)
        check_config(cfg, training=False)
        cfg.TEST.SDMODEL.GENERATED_NECK = False
        with pytest.raises(UserError, match=r"REAL_OWN_VIEW .*GENERATED_NECK is False"):
            check_config(cfg, training=False)


class TestIdentityMean:
    def test_the_target_is_the_mean_of_the_training_images_in_the_drawn_view(self, stage2, make_batch, seen):
        model = stage2(2, "MODEL.SDMODEL.TARGET", "identity_mean").train()
        batches = [make_batch(size=size, seed=seed) for seed, size in enumerate((12, 12, 5))]

        class TrainSet:
            samples = [0, 1, 2]

        model.on_train_start(TrainSet(), lambda samples: [batches[index] for index in samples])
        images = [
            (int(pid), int(view), feature)
            for batch in batches
            for pid, view, feature in zip(
                batch["targets"], batch["viewids"], model.encode(batch).features, strict=True
            )
        ]
        batch = batches[0]
        arguments = seen(model, batch)
        for number, pid in enumerate(batch["targets"].tolist()):
            view = 1 - int(batch["viewids"][number])  # of the only other image
            mean = torch.stack([f for p, v, f in images if (p, v) == (pid, view)]).mean(0)
            torch.testing.assert_close(arguments["targets"][number], mean)
            assert torch.equal(arguments["prototypes"][number], model.memory_bank.prototypes[view])

    def test_the_means_are_left_out_of_other_identities_and_of_stage_1s_checkpoint(self, stage2):
        rules = stage2(2, "MODEL.SDMODEL.TARGET", "identity_mean").parameter_rules()
        assert "identity_means.means".startswith(rules.training_only)
        assert "identity_means.means".startswith(rules.may_start_without)
        assert not any(name.startswith("identity_means") for name in stage2(2).state_dict())


class TestViewSeparation:
    def test_it_is_how_much_more_alike_the_predictions_are_than_the_targets(self):
        predicted, targets = latents = torch.randn(2, 5, 4, 2, 2)
        persons, views = [0, 0, 0, 1, 1], [0, 1, 0, 0, 0]
        terms = []
        for i in range(5):
            for j in range(5):
                if persons[i] == persons[j] and views[i] != views[j]:
                    alike, real = (F.cosine_similarity(x[i].flatten(), x[j].flatten(), 0) for x in latents)
                    terms.append(max(0.0, float(alike - real)))
        assert len(terms) == 4
        persons, views = torch.tensor(persons), torch.tensor(views)
        apart = (persons[:, None] == persons) & (views[:, None] != views)
        loss = view_separation_loss(predicted, targets, apart)
        torch.testing.assert_close(loss, torch.tensor(sum(terms) / 4))
        assert view_separation_loss(targets, targets, apart) == 0
        assert view_separation_loss(predicted, targets, torch.zeros_like(apart)) == 0
        assert view_separation_loss(torch.ones_like(targets), targets, apart) > 0.5

    @pytest.mark.parametrize("kind", ["sample", "v_prediction"])
    def test_a_training_step_adds_its_weight_times_that_of_the_clean_latents(self, generator, kind):
        model = generator("MODEL.SDMODEL.PREDICTION_TYPE", kind, "MODEL.SDMODEL.VIEW_SEPARATION", "0.3")
        calls = {}
        model.unet.register_forward_hook(
            lambda _, args, output: calls.update(noisy=args[0], steps=args[1], predicted=output[0])
        )
        id_tokens, prototypes, _ = conditions(batch=2)
        targets, apart = torch.randn(1, DIM) * torch.tensor([[1.0], [-1.0]]), ~torch.eye(2, dtype=torch.bool)
        losses = model(id_tokens, prototypes, torch.randn(2, DIM), targets, apart)
        clean = calls["predicted"]
        if kind == "v_prediction":
            kept = model.noise_scheduler.alphas_cumprod[calls["steps"]].view(-1, 1, 1, 1)
            clean = kept.sqrt() * calls["noisy"] - (1 - kept).sqrt() * clean
        expected = 0.3 * view_separation_loss(clean, targets, apart)
        assert expected > 0
        torch.testing.assert_close(losses["loss_views"], expected)

    def test_its_pairs_are_of_one_person_in_two_drawn_views(self, stage2, make_batch, seen):
        batch = make_batch()  # two images of each person, each of which gets the other's view
        model = stage2(2, "MODEL.SDMODEL.TARGET", "cross_view").train()
        assert seen(model, batch)["apart"].nonzero().tolist() == [[i, i ^ 1] for i in range(12)]

    def test_predicted_noise_says_too_little_of_the_clean_latent(self, tiny_cfg):
        cfg = tiny_cfg(2, "MODEL.META_ARCHITECTURE", "SDReIDStage2", "MODEL.SDMODEL.VIEW_SEPARATION", "0.1")
        with pytest.raises(UserError, match=r"VIEW_SEPARATION is 0.1, but .*PREDICTION_TYPE epsilon"):
            check_config(cfg, training=False)
        cfg.MODEL.SDMODEL.PREDICTION_TYPE = "sample"
        check_config(cfg, training=False)


def test_part_tokens_are_conditions_of_the_generator(stage2, make_batch, seen):
    model, batch = stage2(2, "MODEL.BACKBONE.PART_TOKENS", "4").train(), make_batch()
    assert seen(model, batch)["id_tokens"].shape == (12, 3 + 4, DIM)
    assert model.generator.condition_learner.null_context.shape == (1, 3 + 4 + 1, DIM)
    model.eval()
    before = model(batch)
    encoded = model.encode(batch)
    encoded.id_tokens[:, -1] += 1
    assert (model.features(encoded, batch) - before)[:, DIM:].abs().max() > 1e-4
