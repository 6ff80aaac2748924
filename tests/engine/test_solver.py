"""Which parameter gets which rate and weight decay, and the clipping of gradients."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastreid.config import get_cfg
from fastreid.solver import build_gradient_clipper, build_optimizer, load_optimizer_state, total_norm
from fastreid.solver.optimizer import start_fused_momenta
from fastreid.utils.errors import UserError


def cfg_with(**solver):
    cfg = get_cfg()
    cfg.merge_values({"SOLVER": solver}, source="test")
    return cfg


def test_an_unknown_optimiser_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"SOLVER.OPT.*Did you mean 'AdamW'"):
        build_optimizer(cfg_with(OPT="AdmW"), nn.Linear(1, 1))


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
        self.backbone.cls_token = nn.Parameter(torch.zeros(1))
        self.backbone.pos_embed = nn.Parameter(torch.zeros(1))
        self.heads = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
        self.heads[0].bias.requires_grad_(False)
        self.headstone = nn.Linear(2, 2)


def test_each_parameter_gets_the_rate_and_decay_of_its_kind():
    rules = {"BASE_LR": 1.0, "HEADS_LR_FACTOR": 10.0, "BIAS_LR_FACTOR": 2.0}
    cfg = cfg_with(**rules, WEIGHT_DECAY=0.1, WEIGHT_DECAY_BIAS=0.2, WEIGHT_DECAY_NORM=0.3)
    model = Parts()
    undecayed = frozenset({"backbone.cls_token", "backbone.pos_embed"})
    optimizer = build_optimizer(cfg, model, undecayed, heads=("heads.",))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "backbone.0.weight": (1.0, 0.1),
        "backbone.0.bias": (2.0, 0.2),
        "backbone.1.weight": (1.0, 0.3),
        "backbone.1.bias": (2.0, 0.3),
        "backbone.2.weight": (1.0, 0.1),
        "backbone.2.bias": (2.0, 0.2),
        "backbone.cls_token": (1.0, 0.0),
        "backbone.pos_embed": (1.0, 0.0),
        "heads.0.weight": (10.0, 0.3),
        "heads.1.weight": (10.0, 0.1),
        "heads.1.bias": (20.0, 0.2),
        "headstone.weight": (1.0, 0.1),
        "headstone.bias": (2.0, 0.2),
    }
    assert len(optimizer.param_groups) == len(set(found.values()))


@pytest.mark.parametrize(("name", "kind"), [("SGD", "SGD"), ("Adam", "Adam"), ("AdamW", "AdamW")])
def test_optimisers_by_name(name, kind):
    assert type(build_optimizer(cfg_with(OPT=name), nn.Linear(1, 1))).__name__ == kind


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_torchs_optimisers_are_fused_on_cuda_alone(name):
    cfg = cfg_with(OPT=name)
    assert build_optimizer(cfg, nn.Linear(1, 1)).defaults["fused"] is None
    with FakeTensorMode():  # a CUDA device that need not be there
        model = nn.Module()
        model.weight = nn.Parameter(torch.empty(2, device="cuda"))
        assert build_optimizer(cfg, model).defaults["fused"] is True
        assert build_optimizer(cfg_with(OPT=name, FUSED=False), model).defaults["fused"] is None


@pytest.mark.parametrize(
    "kind", [partial(torch.optim.SGD, momentum=0.9), torch.optim.Adam, torch.optim.AdamW]
)
@pytest.mark.parametrize("fused", [(None, True), (True, None), (None, None)], ids=str)
def test_an_optimiser_goes_on_from_the_state_of_one_that_was_fused_or_was_not(kind, fused):
    """torch fuses on the CPU, too, and rounds otherwise there."""

    def steps(state: dict | None, weight: torch.Tensor, fused: bool | None, count: int) -> tuple:
        parameter = nn.Parameter(weight.clone())
        optimizer = kind([parameter], lr=0.1, fused=fused)
        if state is not None:
            load_optimizer_state(optimizer, state)
        for _ in range(count):
            parameter.grad = torch.sin(parameter.detach() * 3)
            optimizer.step()
        return optimizer.state_dict(), parameter.detach(), optimizer

    start = torch.linspace(-1, 1, 50)
    before, after = fused
    _, expected, _ = steps(None, start, None, 5)
    state, weight, _ = steps(None, start, before, 2)
    kept = copy.deepcopy(state)
    _, found, optimizer = steps(state, weight, after, 3)
    assert optimizer.param_groups[0]["fused"] is after
    torch.testing.assert_close(found, expected)
    if fused == (None, None):
        assert torch.equal(found, expected)
    torch.testing.assert_close(state, kept, rtol=0, atol=0)  # neither changed nor shared


@pytest.mark.parametrize("kind", [partial(torch.optim.SGD, momentum=0.9), torch.optim.AdamW])
def test_an_optimiser_goes_on_where_weights_have_another_memory_format(kind):
    """As after a change of CHANNELS_LAST, or from the CPU to CUDA; torch's fused kernels look at memory."""
    start = torch.linspace(-1, 1, 36).view(2, 2, 3, 3)

    def steps(state: dict | None, weight: torch.Tensor, kept: torch.memory_format, fused: bool) -> tuple:
        parameter = nn.Parameter(weight.clone(memory_format=kept))
        optimizer = kind([parameter], lr=0.1, fused=fused)
        if state is not None:
            load_optimizer_state(optimizer, state)
        for _ in range(2):
            parameter.grad = torch.sin(parameter.detach() * 3)
            optimizer.step()
        return optimizer.state_dict(), parameter.detach(), kept

    before = steps(None, start, torch.contiguous_format, False)
    _, expected, _ = steps(*before, False)
    _, found, _ = steps(*before[:2], torch.channels_last, True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_fused_sgd_starts_as_the_plain_one_after_a_skipped_step_and_with_a_parameter_freed_later(nesterov):
    def steps(fused: bool) -> list[torch.Tensor]:
        parameters = [nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2)]
        optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=nesterov, fused=fused)
        optimizer.register_step_pre_hook(start_fused_momenta)
        if fused:
            parameters[0].grad = torch.full((7,), float("nan"))
            optimizer.found_inf = torch.ones(())
            optimizer.step()
            del optimizer.found_inf
        for step in range(4):
            for parameter in parameters[: 1 + step // 2]:
                parameter.grad = torch.cos(parameter.detach() + step)
            optimizer.step()
        return parameters

    for found, expected in zip(steps(True), steps(False), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_fully_frozen_model_is_refused():
    with pytest.raises(UserError, match="no trainable parameters"):
        build_optimizer(get_cfg(), nn.Linear(1, 1).requires_grad_(False))


def clip(gradients: list[torch.Tensor], **options) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The returned norm and the gradients afterwards."""
    parameters = [nn.Parameter(torch.empty_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    norm = build_gradient_clipper(cfg_with(CLIP_GRADIENTS=options))(parameters)
    assert norm.ndim == 0
    return norm, [parameter.grad for parameter in parameters]


def norm_by_definition(values: torch.Tensor, order: float) -> float:
    absolute = [abs(value) for value in values.flatten().tolist()]
    return max(absolute) if order == float("inf") else sum(a**order for a in absolute) ** (1 / order)


@pytest.fixture
def gradients() -> list[torch.Tensor]:
    """Of many shapes, the first ones short and the others long."""
    torch.manual_seed(0)
    return [torch.randn(2, count) * count**2 / 200 for count in range(1, 40)]


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, float("inf")])
def test_norm_clips_each_parameter_by_itself(gradients, order):
    norm, clipped = clip(gradients, CLIP_TYPE="norm", CLIP_VALUE=2.0, NORM_TYPE=order)
    lengths = [norm_by_definition(gradient, order) for gradient in gradients]
    assert min(lengths) < 2 < max(lengths)
    for before, length, after in zip(gradients, lengths, clipped, strict=True):
        torch.testing.assert_close(after, before * min(1.0, 2 / length))
    everything = torch.cat([gradient.flatten() for gradient in gradients])
    assert float(norm) == pytest.approx(norm_by_definition(everything, 2.0), rel=1e-5)


@pytest.mark.parametrize("order", [1.0, 2.0, float("inf")])
def test_full_norm_clips_all_parameters_together(gradients, order):
    norm, clipped = clip(gradients, CLIP_TYPE="full_norm", CLIP_VALUE=2.0, NORM_TYPE=order)
    length = norm_by_definition(torch.cat([gradient.flatten() for gradient in gradients]), order)
    for before, after in zip(gradients, clipped, strict=True):
        torch.testing.assert_close(after, before * 2 / length)
    assert float(norm) == pytest.approx(length, rel=1e-5)


def test_value_clips_each_number_and_without_clipping_all_stay():
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([-4.0])]
    norm, clipped = clip(gradients, CLIP_TYPE="value", CLIP_VALUE=3.5)
    assert float(norm) == 5.0
    assert [gradient.tolist() for gradient in clipped] == [[3.0, 0.0], [-3.5]]
    norm, clipped = clip(gradients, ENABLED=False)
    assert float(norm) == 5.0
    assert [gradient.tolist() for gradient in clipped] == [[3.0, 0.0], [-4.0]]


@pytest.mark.parametrize("kind", ["norm", "full_norm", "value"])
class TestEveryClipper:
    @pytest.fixture
    def clipper(self, kind) -> Callable[[list[nn.Parameter]], torch.Tensor]:
        return build_gradient_clipper(cfg_with(CLIP_GRADIENTS={"CLIP_TYPE": kind}))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_number_that_is_not_finite_shows_in_the_norm(self, kind, bad):
        norm, _ = clip([torch.ones(3), torch.tensor([1.0, bad])], CLIP_TYPE=kind)
        assert not norm.isfinite()

    def test_parameters_without_gradients_are_left_out(self, clipper):
        without = nn.Parameter(torch.zeros(2))
        assert (float(clipper([])), float(clipper([without]))) == (0.0, 0.0)
        other = nn.Parameter(torch.zeros(2))
        other.grad = torch.tensor([3.0, 4.0])
        assert float(total_norm([without, other])) == 5.0
        assert float(clipper([without, other])) == 5.0

    def test_no_number_is_read_back_from_the_device(self, clipper):
        parameter = nn.Parameter(torch.empty(3, device="meta"))  # which has none to read
        parameter.grad = torch.empty(3, device="meta")
        assert clipper([parameter]).device.type == "meta"
