"""Freezing layers at the beginning of training."""

import logging

from torch import nn

from fastreid.engine.train_loop import HookBase
from fastreid.utils.errors import UserError, nearest_name

logger = logging.getLogger(__name__)


class LayerFreeze(HookBase):
    """Keeps modules unchanged for the first iterations: no gradients, dropout and BatchNorm in eval mode.

    Args:
        model: whose modules are meant.
        prefixes: module names, such as ``backbone`` or ``backbone.blocks.0``; submodules are included.
        iterations: how long.

    Raises:
        UserError: if a name is no module of the model.
    """

    def __init__(self, model: nn.Module, prefixes: list[str], iterations: int) -> None:
        modules = dict(model.named_modules())
        for prefix in prefixes:
            if prefix not in modules or not prefix:
                near = nearest_name(prefix, list(modules))
                raise UserError(f"MODEL.FREEZE_LAYERS names {prefix!r}, no module of the model.{near}")
        self.prefixes = prefixes
        self.iterations = iterations
        self.modules = [modules[prefix] for prefix in prefixes]
        self._frozen = {id(p): p for module in self.modules for p in module.parameters() if p.requires_grad}

    def before_train(self) -> None:
        self._active = self.trainer.iteration < self.iterations
        if self._active:
            self._set_requires_grad(False)
            logger.info("Frozen until iteration %d: %s", self.iterations, ", ".join(self.prefixes))

    def before_step(self) -> None:
        if self._active and self.trainer.iteration >= self.iterations:
            self._active = False
            self._set_requires_grad(True)
            self.trainer.model.train()
            self.trainer.parallelize()
            logger.info("Iteration %d: %s train now", self.trainer.iteration + 1, ", ".join(self.prefixes))
        if self._active:
            for module in self.modules:
                module.eval()

    def after_train(self) -> None:
        self._set_requires_grad(True)

    def _set_requires_grad(self, value: bool) -> None:
        for parameter in self._frozen.values():
            parameter.requires_grad_(value)
