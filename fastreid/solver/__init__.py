"""Optimisers with per-parameter rules, and learning rate schedules stepped once an iteration."""

from fastreid.solver.clipping import build_gradient_clipper, total_norm
from fastreid.solver.lr_scheduler import SCHEDULES, LRSchedule, build_lr_scheduler
from fastreid.solver.optimizer import OPTIMIZERS, build_optimizer, parameter_groups

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "LRSchedule",
    "build_gradient_clipper",
    "build_lr_scheduler",
    "build_optimizer",
    "parameter_groups",
    "total_norm",
]
