"""Hooks around training steps, one small file a subject."""

from fastreid.engine.hooks.bad_images import BadImageReport
from fastreid.engine.hooks.checkpointing import PeriodicCheckpointer
from fastreid.engine.hooks.evaluation import EvalHook
from fastreid.engine.hooks.freezing import LayerFreeze
from fastreid.engine.hooks.precise_bn import PreciseBN
from fastreid.engine.hooks.recording import IterationTimer, LRScheduler, PeriodicWriter
from fastreid.engine.hooks.signals import StopOnSignal
