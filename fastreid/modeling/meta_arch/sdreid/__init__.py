"""SD-ReID: its stages, the second also as released, and what they are made of.

Only a second stage imports diffusers, when it is built.
"""

from fastreid.modeling.meta_arch.sdreid.as_released import SDReIDStage2AsReleased
from fastreid.modeling.meta_arch.sdreid.memory_bank import MemoryBank
from fastreid.modeling.meta_arch.sdreid.stage1 import SDReIDStage1
from fastreid.modeling.meta_arch.sdreid.stage2 import SDReIDStage2
from fastreid.modeling.weights import EARLIER_STAGES

EARLIER_STAGES |= {1: SDReIDStage1.__name__, 2: SDReIDStage2.__name__}
