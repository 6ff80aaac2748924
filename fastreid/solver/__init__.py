"""Optimisers with per-parameter rules, and learning rate schedules stepped once an iteration."""

from fastreid.solver.lr_scheduler import (
    SCHEDULE_REGISTRY,
    LRSchedule,
    build_lr_scheduler,
    rate_without_warmup,
)
from fastreid.solver.optimizer import (
    OPTIMIZER_REGISTRY,
    build_gradient_clipper,
    build_optimizer,
    load_optimizer_state,
    skips_steps,
    total_norm,
)
