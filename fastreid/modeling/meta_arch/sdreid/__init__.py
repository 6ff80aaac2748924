"""What Stage 2 is made of, and the memory bank of Stage 1.

Only :mod:`memory_bank` is imported here: Stage 1 must not import diffusers.
"""

from fastreid.modeling.meta_arch.sdreid.memory_bank import MemoryBank

__all__ = ["MemoryBank"]
