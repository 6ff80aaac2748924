"""Frozen weights under autocast: cast once, and the results of autocast's own casts to the last bit."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy_conditions import DIM, conditions

from fastreid.modeling.meta_arch.sdreid.cast_once import cast_frozen_weights_once


class CastCounter(TorchDispatchMode):
    """Counts the casts to bf16 by the storage that is cast."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.storages.append(args[0].untyped_storage().data_ptr())
        return function(*args, **kwargs)

    def of(self, parameters) -> int:
        return sum(self.storages.count(parameter.untyped_storage().data_ptr()) for parameter in parameters)


def layers() -> tuple[nn.Module, nn.Module]:
    """A plain network, of which the last layer trains, and the same one with the casts kept."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 2)
    )
    plain[:4].requires_grad_(False)
    once = copy.deepcopy(plain)
    cast_frozen_weights_once(once)
    return plain, once


def outputs(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network(images)


IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_frozen_weights_are_cast_once_and_those_that_train_every_time():
    _, once = layers()
    with CastCounter() as casts, torch.no_grad():
        for _ in range(3):
            outputs(once, IMAGES)
    assert casts.of(once[:4].parameters()) == 4  # weights and biases of two layers
    assert casts.of(once[4].parameters()) == 3 * 2


def test_results_and_gradients_are_those_of_autocast():
    plain, once = layers()
    for network in (plain, once):
        with torch.inference_mode():
            outputs(network, IMAGES)  # evaluated before
    gradients = []
    for network in (plain, once):
        images = IMAGES.clone().requires_grad_()
        outputs(network, images).sum().backward()
        gradients.append([images.grad, *(parameter.grad for parameter in network[4].parameters())])
    assert torch.equal(outputs(plain, IMAGES), outputs(once, IMAGES))
    assert all(map(torch.equal, *gradients))
    assert torch.equal(plain(IMAGES), once(IMAGES))
    assert list(plain.state_dict()) == list(once.state_dict())
    assert all(value.dtype == torch.float32 for value in once.state_dict().values())


def test_a_bias_may_train_by_itself():
    _, once = layers()
    once[3].bias.requires_grad_(True)
    outputs(once, IMAGES).sum().backward()
    assert once[3].bias.grad.abs().sum() > 0


def change_in_place(network):
    with torch.no_grad():
        network[3].bias.add_(1)


def move(network):
    network.to(memory_format=torch.channels_last)
    network[0].weight.data = 2 * network[0].weight.data
    network._apply(lambda tensor: tensor)


CHANGES = {
    "loaded": lambda network: network.load_state_dict({k: v + 1 for k, v in network.state_dict().items()}),
    "assigned": lambda network: network.load_state_dict(
        {name: value + 1 for name, value in network.state_dict().items()}, assign=True
    ),
    "changed": change_in_place,
    "moved": move,
    "unfrozen": lambda network: network.requires_grad_(True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_weights_have_other_copies(change):
    plain, once = layers()
    before = outputs(once, IMAGES)
    for network in (plain, once):
        CHANGES[change](network)
    assert torch.equal(outputs(once, IMAGES), outputs(plain, IMAGES))
    assert torch.equal(outputs(once, IMAGES), before) == (change == "unfrozen")


@pytest.mark.parametrize(
    "option", [[], ["MODEL.SDMODEL.GRADIENT_CHECKPOINTING", "True"]], ids=["", "checkpoints"]
)
def test_a_unet_trains_in_bf16_without_casting_frozen_weights_again(generator, option):
    model = generator(*option).train()
    id_tokens, prototypes, _ = conditions(batch=2)
    frozen = [p for p in model.unet.parameters() if not p.requires_grad and p.ndim > 1]

    def step() -> list[torch.Tensor]:
        torch.manual_seed(0)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(id_tokens, prototypes, torch.randn(2, DIM), torch.randn(2, DIM))["loss_noise"]
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    first = step()
    with CastCounter() as casts:
        second = step()
    assert casts.of(frozen) == 0
    assert len(frozen) > 50
    assert all(map(torch.equal, first, second))
