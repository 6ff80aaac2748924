"""The parts of the Stage-2 generator, each against what the design says of it."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_conditions import DIM, ID_TOKENS, conditions

from fastreid.modeling.meta_arch.sdreid.condition_learner import ConditionLearner
from fastreid.modeling.meta_arch.sdreid.latent import LatentCodec, latent_shape
from fastreid.modeling.meta_arch.sdreid.schedulers import build_scheduler, schedule_settings
from fastreid.modeling.meta_arch.sdreid.unet import build_unet
from fastreid.modeling.meta_arch.sdreid.unet_weights import load_unet_weights
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import ViewRefinedDecoder, refined_unet
from fastreid.utils.errors import UserError


def unet_of(cfg, dim=DIM):
    return build_unet(cfg.MODEL.SDMODEL.UNET_CONFIG, dim)


def scheduler_of(cfg, name):
    return build_scheduler(name, schedule_settings(cfg))


class TestLatent:
    @pytest.mark.parametrize(
        ("dim", "shape"), [(768, (4, 16, 12)), (384, (4, 12, 8)), (192, (4, 8, 6)), (1024, (4, 16, 16))]
    )
    def test_is_as_square_as_possible(self, dim, shape):
        assert latent_shape(dim) == shape

    @pytest.mark.parametrize("dim", [127, 4 * 13, 4])
    def test_widths_without_a_grid_are_refused(self, dim):
        with pytest.raises(UserError, match=f"FEAT_DIM {dim}"):
            latent_shape(dim)

    def test_raw_latents_are_the_features_reshaped(self):
        features = torch.randn(2, 768)
        latents = LatentCodec(768).encode(features)
        assert latents.shape == (2, 4, 16, 12)
        assert torch.equal(latents.flatten(1), features)

    def test_fitted_latents_are_standardised_and_decode_back(self):
        features = torch.randn(500, 128) * 0.03 + 2
        codec = LatentCodec(128)
        codec.fit(features.mean(0), features.std(0, correction=0))
        latents = codec.encode(features).flatten(1)
        torch.testing.assert_close(latents.mean(0), torch.zeros(128), atol=1e-3, rtol=0)
        torch.testing.assert_close(latents.std(0, correction=0), torch.ones(128), atol=1e-3, rtol=0)
        torch.testing.assert_close(codec.decode(codec.encode(features)), features)


class TestViewRefinedDecoder:
    def test_pyramids_have_the_sizes_of_stable_diffusion_at_full_width(self):
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            unet = UNet2DConditionModel(cross_attention_dim=768)  # diffusers' defaults are SD v1.5's sizes
            vrd = ViewRefinedDecoder(768, unet)
            residuals = vrd(torch.empty(2, 768))
        expected = [(2, 320, 16, 12), (2, 640, 8, 6), (2, 1280, 4, 3)]
        assert [tuple(level.shape) for level in residuals.encoder] == expected
        assert [tuple(level.shape) for level in residuals.decoder] == expected

    @pytest.mark.parametrize("dim", [128, 192, 384])
    def test_pyramids_fit_the_unet_at_every_width(self, tiny_cfg, dim):
        unet = unet_of(tiny_cfg(2), dim)
        vrd = ViewRefinedDecoder(dim, unet)
        latents = torch.randn(2, *latent_shape(dim))
        predicted = refined_unet(
            unet, latents, torch.tensor([5, 9]), torch.randn(2, 4, dim), vrd(torch.randn(2, dim))
        )
        assert predicted.shape == latents.shape

    def test_convolutions_start_as_pytorchs_do(self, tiny_cfg):
        """Uniform up to 1 / sqrt(fan-in), weights and biases; the fan-in is the kernel's size squared."""
        vrd = ViewRefinedDecoder(DIM, unet_of(tiny_cfg(2)))
        for pyramid in (vrd.encoder, vrd.decoder):
            for convolution, kernel in zip(pyramid, (2, 4, 8), strict=True):
                values = torch.cat([convolution.weight.flatten(), convolution.bias]) * kernel
                assert 0.9 < values.abs().max() <= 1
                assert values.square().mean().item() == pytest.approx(1 / 3, rel=0.25)

    @pytest.mark.parametrize("part", ["encoder", "decoder", "context"])
    def test_each_condition_changes_the_prediction(self, generator, part):
        model = generator()
        latents, context = torch.randn(2, 4, 8, 4), torch.randn(2, 4, DIM)
        residuals = model.view_refined_decoder(torch.randn(2, DIM))
        other = model.view_refined_decoder(torch.randn(2, DIM))
        before = refined_unet(model.unet, latents, 5, context, residuals)
        if part == "context":
            after = refined_unet(model.unet, latents, 5, context + 1, residuals)
        else:
            after = refined_unet(
                model.unet, latents, 5, context, residuals._replace(**{part: getattr(other, part)})
            )
        assert (after - before).abs().max() > 1e-3

    @pytest.mark.parametrize("pyramids", [[], ["encoder"], ["decoder"]])
    def test_a_pyramid_left_out_has_no_weights_and_changes_nothing(self, generator, pyramids):
        model = generator("MODEL.SDMODEL.VRD_CONFIG.PYRAMIDS", pyramids)
        half = generator()
        half.load_state_dict(model.state_dict(), strict=False)
        for name in {"encoder", "decoder"} - set(pyramids):
            assert not any(name in key for key in model.view_refined_decoder.state_dict())
            for parameter in getattr(half.view_refined_decoder, name).parameters():
                torch.nn.init.zeros_(parameter)
        latents, context, maps = torch.randn(2, 4, 8, 4), torch.randn(2, 4, DIM), torch.randn(2, DIM)
        outputs = [
            refined_unet(m.unet, latents, 5, context, m.view_refined_decoder(maps)) for m in (model, half)
        ]
        torch.testing.assert_close(*outputs)

    def test_the_decoder_pyramid_leaves_the_unets_encoder_alone(self, generator):
        model = generator()
        seen = []
        model.unet.down_blocks[-1].register_forward_hook(
            lambda module, inputs, outputs: seen.append(outputs[0])
        )
        residuals = model.view_refined_decoder(torch.randn(2, DIM))
        doubled = residuals._replace(decoder=tuple(2 * level for level in residuals.decoder))
        latents, context = torch.randn(2, 4, 8, 4), torch.randn(2, 4, DIM)
        for each in (residuals, doubled):
            refined_unet(model.unet, latents, 5, context, each)
        assert torch.equal(seen[0], seen[1])

    def test_residuals_survive_repeated_calls(self, generator):
        """The reference release lost them after the first sampling step."""
        model = generator()
        latents, context = torch.randn(2, 4, 8, 4), torch.randn(2, 4, DIM)
        residuals = model.view_refined_decoder(torch.randn(2, DIM))
        first, second = (refined_unet(model.unet, latents, 5, context, residuals) for _ in range(2))
        assert torch.equal(first, second)
        assert len(residuals.encoder) == len(residuals.decoder) == 3


class TestTraining:
    def test_only_the_chosen_projections_of_the_unet_train(self, tiny_cfg):
        unet = unet_of(tiny_cfg(2, "MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX", "[1, 2]"))
        trained = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
        assert trained
        for name in trained:
            assert name.startswith(("up_blocks.1.", "up_blocks.2."))
            assert ".attn2.to_k." in name or ".attn2.to_v." in name

    def test_every_level_of_the_small_unet_sees_the_timestep(self, tiny_cfg):
        """A group norm of one channel a group would remove what the time embedding adds."""
        unet = unet_of(tiny_cfg(2))
        context = torch.randn(1, 4, DIM)
        seen = []
        for block in unet.down_blocks:
            block.resnets[0].register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
        for step in (1, 900):
            torch.manual_seed(0)
            unet(torch.randn(1, 4, 8, 4), step, encoder_hidden_states=context)
        first, last = seen[0], seen[3]
        assert torch.equal(first[0], last[0])  # the finest level's input knows no timestep
        assert (first[1] - last[1]).norm() > 0.01 * first[1].norm()

    def test_timesteps_follow_the_cubic_law(self, generator):
        model = generator()
        steps = model.options.draw_timesteps(200_000, torch.device("cpu"))
        assert steps.min() >= 0
        assert steps.max() <= 999
        # P(t < x T) = 1 - (1 - x)^(1/3) for t = (1 - u^3) T
        for share in (0.1, 0.5, 0.9):
            expected = 1 - (1 - share) ** (1 / 3)
            assert (steps < share * 1000).float().mean().item() == pytest.approx(expected, abs=0.01)

    @pytest.mark.parametrize("power", [1.0, 8.0])
    def test_timesteps_may_be_uniform_or_closer_to_pure_noise(self, generator, power):
        group = "MODEL.SDMODEL.SCHEDULER_CONFIG"
        model = generator(f"{group}.CUBIC_SAMPLING", "False", f"{group}.TIMESTEP_POWER", power)
        steps = model.options.draw_timesteps(200_000, torch.device("cpu")).float()
        expected = 1000 * (1 - 1 / (power + 1))  # the mean of 1 - u^p is 1 - 1 / (p + 1)
        assert steps.mean().item() == pytest.approx(expected, abs=3)

    def test_the_loss_is_the_mean_squared_error_of_the_noise(self, generator):
        model = generator("MODEL.SDMODEL.U_COND_PERCENT", "0.0")
        id_tokens, prototypes, _ = conditions(batch=2)
        view_tokens, targets = torch.randn(2, DIM), torch.randn(2, DIM)
        torch.manual_seed(3)
        loss = model(id_tokens, prototypes, view_tokens, targets)["loss_noise"]

        torch.manual_seed(3)
        torch.rand(2, 1, 1)  # the draw for the null context
        noise = torch.randn(2, 4, 8, 4)
        steps = ((1 - torch.rand(2) ** 3) * 1000).long()
        kept = model.noise_scheduler.alphas_cumprod[steps].view(2, 1, 1, 1)
        noisy = kept.sqrt() * targets.view(2, 4, 8, 4) + (1 - kept).sqrt() * noise
        context = model.condition_learner(id_tokens, prototypes)
        predicted = refined_unet(model.unet, noisy, steps, context, model.view_refined_decoder(view_tokens))
        torch.testing.assert_close(loss, (predicted - noise).square().mean())

    def test_gradient_checkpointing_keeps_less_and_trains_the_same(self, generator):
        def trained(enabled: str) -> tuple[list[torch.Tensor], int]:
            model = generator("MODEL.SDMODEL.GRADIENT_CHECKPOINTING", enabled).train()
            torch.manual_seed(3)
            id_tokens, prototypes, _ = conditions(batch=2)
            kept = []
            with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
                loss = model(id_tokens, prototypes, torch.randn(2, DIM), torch.randn(2, DIM))["loss_noise"]
            loss.backward()
            return [loss, *(p.grad for p in model.parameters() if p.requires_grad)], sum(kept)

        (plain, memory), (checkpointed, less_memory) = trained("False"), trained("True")
        torch.testing.assert_close(checkpointed, plain)
        assert less_memory < memory / 2

    @pytest.mark.parametrize("kind", ["sample", "v_prediction"])
    def test_the_clean_latent_and_the_velocity_can_be_learned_instead_of_the_noise(self, generator, kind):
        model = generator("MODEL.SDMODEL.PREDICTION_TYPE", kind)
        seen = {}
        model.unet.register_forward_hook(lambda _, args, output: seen.update(noisy=args, predicted=output[0]))
        id_tokens, prototypes, _ = conditions(batch=2)
        targets = torch.randn(2, DIM)
        loss = model(id_tokens, prototypes, torch.randn(2, DIM), targets)["loss_noise"]
        noisy, steps = seen["noisy"]
        clean = targets.view(2, 4, 8, 4)
        kept = model.noise_scheduler.alphas_cumprod[steps].view(2, 1, 1, 1)
        noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
        expected = clean if kind == "sample" else kept.sqrt() * noise - (1 - kept).sqrt() * clean
        torch.testing.assert_close(loss, (seen["predicted"] - expected).square().mean(), atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(("kind", "share"), [("instance", 1), ("prototype", 0), ("mixed", 0.5)])
    def test_the_view_map_is_the_instance_the_prototype_or_either(self, generator, kind, share):
        model = generator("MODEL.SDMODEL.VIEW_MAP", kind)
        seen = []
        model.view_refined_decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        instances, prototypes = torch.ones(400, DIM), torch.zeros(400, DIM)
        model(torch.randn(400, ID_TOKENS, DIM), prototypes, instances, torch.randn(400, DIM))
        (maps,) = seen
        assert ((maps == 0).all(1) | (maps == 1).all(1)).all()
        assert maps[:, 0].mean().item() == pytest.approx(share, abs=0.1)

    def test_standardised_tokens_have_lost_their_mean_and_scale(self, generator):
        learner = generator("MODEL.SDMODEL.STANDARDIZE_TOKENS", "True").condition_learner
        plain = generator().condition_learner
        plain.load_state_dict(learner.state_dict(), strict=False)
        mean, std = torch.randn(ID_TOKENS, DIM), torch.rand(ID_TOKENS, DIM) + 0.5
        learner.fit(mean, std)
        tokens, prototypes = torch.randn(3, ID_TOKENS, DIM), torch.randn(3, DIM)
        torch.testing.assert_close(learner(tokens * std + mean, prototypes), plain(tokens, prototypes))

    def test_the_null_context_starts_as_standard_normal_noise(self):
        null = ConditionLearner(dim=384, num_tokens=12, depth=1, heads=12).null_context
        assert null.shape == (1, 12, 384)
        assert null.mean().item() == pytest.approx(0, abs=0.06)  # 4 standard errors
        assert null.std().item() == pytest.approx(1, abs=0.05)

    def test_token_dropout_blanks_its_share_of_the_tokens(self, generator):
        model = generator("MODEL.SDMODEL.TOKEN_DROPOUT", "0.3")
        seen = []
        model.condition_learner.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        shape = (2000, ID_TOKENS, DIM)
        model(torch.ones(shape), torch.zeros(2000, DIM), torch.zeros(2000, DIM), torch.zeros(2000, DIM))
        (tokens,) = seen
        assert ((tokens == 0).all(2) | (tokens == 1).all(2)).all()
        assert tokens.mean().item() == pytest.approx(0.7, abs=0.03)

    @torch.no_grad()
    def test_the_attention_starts_as_torchs_own(self):
        oracle = torch.nn.MultiheadAttention(384, 12)
        (layer,) = ConditionLearner(dim=384, num_tokens=12, depth=1, heads=12).transformer.layers
        attention = layer.self_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            ours, theirs = projection.weight, oracle.in_proj_weight
            assert ours.abs().max() == pytest.approx(theirs.abs().max().item(), rel=1e-2)
            assert ours.std() == pytest.approx(theirs.std().item(), rel=1e-2)
            assert not projection.bias.any()
        ours, theirs = attention.out_proj, oracle.out_proj
        assert ours.weight.abs().max() == pytest.approx(theirs.weight.abs().max().item(), rel=1e-2)
        assert not ours.bias.any()

    def test_the_null_context_replaces_the_configured_share(self, generator):
        learner = generator().condition_learner
        dropped = learner.drop(torch.zeros(20_000, ID_TOKENS + 1, DIM), 0.2)
        is_null = (dropped == learner.null_context).all(dim=(1, 2))
        assert is_null.float().mean().item() == pytest.approx(0.2, abs=0.01)
        assert (dropped[~is_null] == 0).all()


class TestFolders:
    @pytest.mark.parametrize("safe", [True, False])
    def test_a_saved_unet_loads_from_its_folder(self, tiny_cfg, tmp_path, safe):
        saved = unet_of(tiny_cfg(2))
        saved.save_pretrained(tmp_path / "unet", safe_serialization=safe)
        cfg = tiny_cfg(2, "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", str(tmp_path / "unet"))
        loaded = unet_of(cfg)
        load_unet_weights(loaded, str(tmp_path / "unet"))
        for name, value in saved.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)

    def test_a_unet_is_described_by_its_folder_without_weights(self, tiny_cfg, tmp_path):
        saved = unet_of(tiny_cfg(2, "MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[64, 32, 96]"))
        saved.save_config(tmp_path / "unet")
        cfg = tiny_cfg(2, "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", str(tmp_path / "unet"))
        described = unet_of(cfg)
        assert list(described.state_dict()) == list(saved.state_dict())
        with pytest.raises(UserError, match="UNet weights .*unet/diffusion_pytorch_model.* not found"):
            load_unet_weights(described, str(tmp_path / "unet"))

    @pytest.mark.parametrize("damage", ["cut short", "another shape", "no tensors"])
    def test_weights_that_do_not_fit_are_named(self, tiny_cfg, tmp_path, damage):
        unet = unet_of(tiny_cfg(2))
        unet.save_pretrained(tmp_path / "unet")
        file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
        if damage == "cut short":
            file.write_bytes(file.read_bytes()[:3000])
        elif damage == "another shape":
            save_file(load_file(file) | {"conv_in.bias": torch.zeros(7)}, file)
        else:
            file.unlink()
            file.with_suffix(".bin").write_text("no tensors")
        before = [value.clone() for value in unet.state_dict().values()]
        with pytest.raises(UserError, match="unet/diffusion_pytorch_model.*download") as error:
            load_unet_weights(unet, str(tmp_path / "unet"))
        assert "\n" not in str(error.value)
        assert all(torch.equal(*pair) for pair in zip(before, unet.state_dict().values(), strict=True))

    def test_a_unet_of_another_width_is_refused(self, tiny_cfg, tmp_path):
        unet_of(tiny_cfg(2), 192).save_pretrained(tmp_path / "unet")
        with pytest.raises(UserError, match="cross_attention_dim is 192 .*width 128"):
            unet_of(tiny_cfg(2, "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", str(tmp_path / "unet")))

    def test_a_scheduler_folder_is_read_and_its_steps_replaced(self, tiny_cfg, tmp_path):
        scheduler_of(tiny_cfg(2), "pndm").save_pretrained(tmp_path)
        cfg = tiny_cfg(
            2,
            "MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH",
            str(tmp_path),
            "MODEL.SDMODEL.TRAIN_STEP",
            "600",
        )
        scheduler = scheduler_of(cfg, "ddpm")
        assert scheduler.config.num_train_timesteps == 600
        assert scheduler.config.beta_schedule == "scaled_linear"

    def test_a_missing_scheduler_folder_and_an_unknown_name_are_explained(self, tiny_cfg, tmp_path):
        missing = tiny_cfg(2, "MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH", str(tmp_path / "none"))
        with pytest.raises(UserError, match="none/scheduler_config.json"):
            scheduler_of(missing, "ddpm")
        with pytest.raises(UserError, match="'ddim'"):
            scheduler_of(tiny_cfg(2), "ddimm")
