"""Sampling: against diffusers' plain loop, and independent of how images are batched."""

from unittest import mock

import pytest
import torch
from toy_conditions import DIM, conditions, count_rows

from fastreid.config import check_config
from fastreid.modeling.meta_arch.sdreid import generator as generator_module
from fastreid.modeling.meta_arch.sdreid.noise import noise_generators
from fastreid.modeling.meta_arch.sdreid.sampler import Sampler, clean_latents
from fastreid.modeling.meta_arch.sdreid.scheduler_names import DIFFUSION_SCHEDULER_REGISTRY
from fastreid.modeling.meta_arch.sdreid.schedulers import build_scheduler, schedule_settings
from fastreid.modeling.meta_arch.sdreid.view_refined_decoder import refined_unet
from fastreid.utils.errors import UserError


def is_channels_last(unet):
    weights = [module.weight for module in unet.modules() if isinstance(module, torch.nn.Conv2d)]
    return all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


SCHEDULERS = list(DIFFUSION_SCHEDULER_REGISTRY)


def scheduler_of(cfg, name):
    return build_scheduler(name, schedule_settings(cfg))


def sampler_of(cfg):
    name, steps = cfg.MODEL.SDMODEL.SCHEDULER_CONFIG.NAME, cfg.TEST.SDMODEL.NUM_INFERENCE_STEPS
    return Sampler(name, schedule_settings(cfg), steps)


class TestGeneration:
    @pytest.mark.parametrize("views", [2, 3])
    def test_every_view_is_generated_and_they_differ(self, generator, views):
        id_tokens, prototypes, names = conditions(views=views)
        features = generator().generate(id_tokens, prototypes, names)
        assert features.shape == (3, views, DIM)
        for view in range(1, views):
            assert (features[:, view] - features[:, 0]).abs().max() > 1e-3

    @pytest.mark.parametrize("noise", ["common", "per_image"])
    @pytest.mark.parametrize("prediction", ["sample", "mean"])
    def test_a_feature_does_not_depend_on_its_batch(self, generator, noise, prediction):
        model = generator("TEST.SDMODEL.NOISE", noise, "TEST.SDMODEL.PREDICTION", prediction)
        id_tokens, prototypes, names = conditions(batch=4)
        together = model.generate(id_tokens, prototypes, names)
        torch.rand(10)  # the global generator plays no part
        order = [2, 0, 3, 1]
        alone = torch.cat([model.generate(id_tokens[[i]], prototypes, [names[i]]) for i in order])
        torch.testing.assert_close(alone, together[order], atol=1e-5 * together.abs().max().item(), rtol=0)

    @pytest.mark.parametrize("name", SCHEDULERS)
    def test_without_guidance_it_is_the_plain_diffusers_loop(self, generator, tiny_cfg, name):
        options = ("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", name, "TEST.SDMODEL.FULL_GUIDANCE_SCALE", "1.0")
        model = generator(*options)
        id_tokens, prototypes, names = conditions(batch=1, views=1)
        features = model.generate(id_tokens, prototypes, names)

        scheduler = scheduler_of(tiny_cfg(2, *options), name)
        source = noise_generators(1111, 1, names, per_image=False)[0]
        context = model.condition_learner(id_tokens, prototypes)
        residuals = model.view_refined_decoder(prototypes)
        scheduler.set_timesteps(3)
        latents = torch.randn(1, 4, 8, 4, generator=source) * scheduler.init_noise_sigma
        for step in scheduler.timesteps:
            with torch.no_grad():
                noise = refined_unet(
                    model.unet, scheduler.scale_model_input(latents, step), step, context, residuals
                )
            extra = {} if name in ("pndm", "unipc") else {"generator": source}
            latents = scheduler.step(noise, step, latents, **extra).prev_sample
        torch.testing.assert_close(features[0], latents.flatten(1), atol=1e-5, rtol=1e-5)

    def test_guidance_extrapolates_from_the_learned_null_context(self, generator):
        options = ("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", "ddim", "TEST.SDMODEL.NUM_INFERENCE_STEPS", "1")
        id_tokens, prototypes, names = conditions(batch=2)

        def generated(scale: str) -> torch.Tensor:
            model = generator(*options, "TEST.SDMODEL.FULL_GUIDANCE_SCALE", scale)
            return model.generate(id_tokens, prototypes, names)

        unconditional, conditional, guided = (generated(scale) for scale in ("0.0", "1.0", "2.0"))
        torch.testing.assert_close(guided, 2 * conditional - unconditional, atol=1e-3, rtol=1e-3)

        model = generator(*options, "TEST.SDMODEL.FULL_GUIDANCE_SCALE", "0.0")
        model.condition_learner.null_context.data += 1
        assert (model.generate(id_tokens, prototypes, names) - unconditional).abs().max() > 1e-3

    def test_the_mean_is_the_clean_latent_predicted_from_pure_noise(self, generator):
        model = generator("TEST.SDMODEL.PREDICTION", "mean")
        id_tokens, prototypes, names = conditions(batch=1, views=1)
        noise = torch.randn(1, 4, 8, 4, generator=noise_generators(1111, 1, names, per_image=False)[0])
        with torch.no_grad():
            context = model.condition_learner(id_tokens, prototypes)
            predicted = refined_unet(model.unet, noise, 999, context, model.view_refined_decoder(prototypes))
        kept = model.noise_scheduler.alphas_cumprod[999]
        expected = (noise - (1 - kept).sqrt() * predicted) / kept.sqrt()
        features = model.generate(id_tokens, prototypes, names)
        torch.testing.assert_close(features[0], expected.flatten(1), atol=1e-3, rtol=1e-4)

    @pytest.mark.parametrize("name", ["ddpm", "ddim"])
    def test_a_feature_does_not_depend_on_the_size_of_the_chunks(self, generator, name):
        model = generator("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", name)
        id_tokens, prototypes, names = conditions(batch=5)
        whole = model.generate(id_tokens, prototypes, names)
        calls = count_rows(model.unet)
        for rows in (1, 4, 9):  # 4 rows are one image: two views and both branches
            calls.clear()
            model._chunks.max_rows = rows
            chunked = model.generate(id_tokens, prototypes, names)
            assert max(calls) == max(4, rows // 4 * 4)
            torch.testing.assert_close(chunked, whole, atol=1e-5 * whole.abs().max().item(), rtol=0)

    @pytest.mark.parametrize("failure", [torch.cuda.OutOfMemoryError, RuntimeError])
    def test_what_does_not_fit_in_memory_is_computed_in_smaller_chunks(self, generator, failure):
        model = generator()
        id_tokens, prototypes, names = conditions(batch=5)
        whole = model.generate(id_tokens, prototypes, names)
        calls = count_rows(model.unet, 9, failure)
        chunked = model.generate(id_tokens, prototypes, names)
        torch.testing.assert_close(chunked, whole, atol=1e-5 * whole.abs().max().item(), rtol=0)
        failed = sum(rows > 9 for rows in calls)
        calls.clear()
        model.generate(id_tokens, prototypes, names)
        assert failed
        assert max(calls) <= 9  # the size that fitted is kept

    @pytest.mark.slow
    def test_a_compiled_unet_generates_and_trains_the_same(self, generator):
        plain, compiled = generator(), generator("MODEL.SDMODEL.COMPILE", "True")
        assert list(compiled.state_dict()) == list(plain.state_dict())
        id_tokens, prototypes, names = conditions(batch=2)
        expected = plain.generate(id_tokens, prototypes, names)
        features = compiled.generate(id_tokens, prototypes, names)
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
        gradients = []
        for model in (plain, compiled):
            torch.manual_seed(3)
            model(id_tokens, prototypes, torch.randn(2, DIM), torch.randn(2, DIM))["loss_noise"].backward()
            gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("wanted", [True, False])
    def test_convolutions_are_in_channels_last_memory_on_cuda_unless_it_is_off(
        self, generator, monkeypatch, wanted
    ):
        assert not is_channels_last(generator().unet)
        monkeypatch.setattr(generator_module, "resolve_device", lambda name: torch.device("cuda"))
        assert is_channels_last(generator("MODEL.SDMODEL.CHANNELS_LAST", str(wanted)).unet) == wanted

    def test_too_little_memory_for_one_image_is_an_error(self, generator):
        model = generator()
        count_rows(model.unet, most=1)
        with pytest.raises(torch.cuda.OutOfMemoryError):
            model.generate(*conditions(batch=2))

    def test_another_failure_is_not_tried_again(self, generator):
        model = generator()
        calls = count_rows(model.unet, 1, ValueError)
        with pytest.raises(ValueError, match="simulated"):
            model.generate(*conditions(batch=2))
        assert len(calls) == 1

    def test_common_noise_computes_the_first_unconditional_step_once(self, generator):
        """All images start from the same noise: 2 + 10 rows instead of 20, then both branches of all."""
        model = generator()
        calls = count_rows(model.unet)
        model.generate(*conditions(batch=5))
        assert calls == [12, 20, 20]

    @pytest.mark.parametrize("scale", ["1.0", "2.0"])
    def test_keys_and_values_of_the_context_are_computed_once_for_all_steps(self, generator, scale):
        model = generator("TEST.SDMODEL.FULL_GUIDANCE_SCALE", scale)
        projection = model.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
        calls = []
        project = projection.forward
        projection.forward = lambda rows: calls.append(len(rows)) or project(rows)
        model.generate(*conditions(batch=3))
        assert calls == [3 * 2 * (1 if scale == "1.0" else 2)]

    @pytest.mark.parametrize("prediction", ["sample", "mean"])
    def test_a_bf16_feature_does_not_depend_on_its_batch(self, generator, prediction):
        model = generator("TEST.SDMODEL.PREDICTION", prediction)
        id_tokens, prototypes, names = conditions(batch=4)
        with torch.autocast("cpu", torch.bfloat16):
            together = model.generate(id_tokens, prototypes, names)
            alone = torch.cat([model.generate(id_tokens[[i]], prototypes, [names[i]]) for i in range(4)])
        assert together.dtype == torch.float32
        assert torch.cosine_similarity(alone, together, dim=-1).min() > 0.9999

    @pytest.mark.cuda
    @pytest.mark.parametrize("name", ["ddpm", "ddim", "euler", "pndm", "dpmsolver++"])
    def test_no_step_waits_for_the_gpu(self, generator, name):
        model = generator("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", name).cuda()
        id_tokens, prototypes, names = conditions()
        id_tokens, prototypes = id_tokens.cuda(), prototypes.cuda()
        expected = model.generate(id_tokens, prototypes, names)
        hook = model.unet.register_forward_pre_hook(lambda *_: torch.cuda.set_sync_debug_mode("error"))
        try:
            features = model.generate(id_tokens, prototypes, names)
        finally:
            hook.remove()
            torch.cuda.set_sync_debug_mode("default")
        torch.testing.assert_close(features, expected)


DDPM_NOISE = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
KINDS = ("epsilon", "sample", "v_prediction")
CASES = [(name, kind) for name in SCHEDULERS for kind in KINDS if (name, kind) != ("pndm", "sample")]


class TestSchedulers:
    @pytest.mark.parametrize("name", ["ddpm", "ddim", "pndm"])
    def test_as_many_steps_as_timesteps_are_refused_where_the_first_would_be_behind_the_last(
        self, tiny_cfg, name
    ):
        options = ("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", name, "MODEL.SDMODEL.TRAIN_STEP", "100")
        with pytest.raises(UserError, match="NUM_INFERENCE_STEPS 100: .*timestep 100 .*TRAIN_STEP 100"):
            sampler_of(tiny_cfg(2, *options, "TEST.SDMODEL.NUM_INFERENCE_STEPS", "100"))
        sampler_of(tiny_cfg(2, *options, "TEST.SDMODEL.NUM_INFERENCE_STEPS", "99"))

    @pytest.mark.parametrize("train_steps", [600, 800, 1000])
    @pytest.mark.parametrize("steps", [4, 5, 10])
    @pytest.mark.parametrize("offset", [0, 1])
    def test_ddpm_is_diffusers_ddpm(self, tiny_cfg, tmp_path, train_steps, steps, offset):
        cfg = self.with_folder(tiny_cfg, tmp_path, train_steps, steps, steps_offset=offset)
        sampler, oracle = sampler_of(cfg), scheduler_of(cfg, "ddpm")
        noise = torch.randn(sampler.draws, 2, 4, 8, 4, generator=torch.Generator().manual_seed(0))
        ours = sampler(noise, lambda inputs, timestep, is_first: 0.5 * inputs.sin())
        oracle.set_timesteps(steps)
        latents, draws = noise[0], iter(noise[1:])
        for timestep in oracle.timesteps:
            predicted = 0.5 * latents.sin()
            with mock.patch(DDPM_NOISE, side_effect=lambda *_, **__: next(draws)):
                latents = oracle.step(predicted, timestep, latents).prev_sample
        torch.testing.assert_close(ours, latents, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize(("spacing", "steps"), [("linspace", 5), ("trailing", 7)])
    def test_ddpm_of_uneven_timesteps_is_refused(self, tiny_cfg, tmp_path, spacing, steps):
        cfg = self.with_folder(tiny_cfg, tmp_path, 600, steps, timestep_spacing=spacing)
        with pytest.raises(UserError, match=f"timestep_spacing is {spacing}.*leading"):
            sampler_of(cfg)
        cfg.MODEL.SDMODEL.SCHEDULER_CONFIG.NAME = "ddim"
        sampler_of(cfg)

    @staticmethod
    def with_folder(tiny_cfg, folder, train_steps, steps, **settings):
        build_scheduler("ddpm", schedule_settings(tiny_cfg(2)) | settings).save_pretrained(folder)
        options = ("MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH", str(folder))
        options += ("MODEL.SDMODEL.TRAIN_STEP", str(train_steps))
        return tiny_cfg(2, *options, "TEST.SDMODEL.NUM_INFERENCE_STEPS", str(steps))


class TestPredictionTypes:
    """An ideal prediction leads to the clean latent, whatever is predicted and whichever scheduler steps."""

    @staticmethod
    def prediction(kind, noisy, clean, kept):
        noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
        return {"epsilon": noise, "sample": clean, "v_prediction": velocity}[kind]

    @pytest.mark.parametrize(("name", "kind"), CASES)
    def test_sampling_ends_at_the_clean_latent(self, tiny_cfg, name, kind):
        options = ("MODEL.SDMODEL.SCHEDULER_CONFIG.NAME", name, "MODEL.SDMODEL.PREDICTION_TYPE", kind)
        cfg = tiny_cfg(2, *options, "TEST.SDMODEL.NUM_INFERENCE_STEPS", "20")
        kept = scheduler_of(cfg, "ddpm").alphas_cumprod
        sampler = sampler_of(cfg)
        clean = torch.randn(3, 4, 8, 4)

        def predict(inputs, timestep, is_first):
            return self.prediction(kind, inputs, clean, kept[timestep.long()])

        latents = sampler(torch.randn(sampler.draws, 3, 4, 8, 4), predict)
        # Some schedulers stop at the first timestep, whose noise has a standard deviation of 0.03.
        assert (latents - clean).square().mean().sqrt() < 0.06

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_mean_is_the_clean_latent(self, kind):
        clean, noisy, kept = torch.randn(3, 4, 8, 4), torch.randn(3, 4, 8, 4), torch.tensor(0.05)
        predicted = self.prediction(kind, noisy, clean, kept)
        torch.testing.assert_close(clean_latents(kind, predicted, noisy, kept), clean)

    def test_pndm_cannot_step_from_clean_latents(self, tiny_cfg):
        cfg = tiny_cfg(2, "MODEL.SDMODEL.PREDICTION_TYPE", "sample")
        check_config(cfg)
        cfg.MODEL.SDMODEL.SCHEDULER_CONFIG.NAME = "pndm"
        with pytest.raises(UserError, match="PREDICTION_TYPE sample.*pndm"):
            check_config(cfg)


class TestNoise:
    def test_common_noise_is_one_sequence_for_each_view(self):
        draws = [
            torch.randn(4, generator=g) for g in noise_generators(1, 2, ["a.jpg", "b.jpg"], per_image=False)
        ]
        assert torch.equal(draws[0], draws[2])
        assert torch.equal(draws[1], draws[3])
        assert not torch.equal(draws[0], draws[1])

    def test_per_image_noise_depends_on_the_file_name_and_not_on_its_folder(self):
        names = ["x/a.jpg", "y/a.jpg", "x/b.jpg"]
        draws = [torch.randn(4, generator=g) for g in noise_generators(1, 1, names, per_image=True)]
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

    def test_noise_depends_on_the_seed(self):
        one, other = (
            torch.randn(4, generator=noise_generators(seed, 1, ["a"], per_image=False)[0]) for seed in (1, 2)
        )
        assert not torch.equal(one, other)
