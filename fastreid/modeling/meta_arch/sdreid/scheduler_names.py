"""The names of diffusion schedulers; diffusers, slow to import, is imported with the first one."""

from fastreid.utils.registry import Registry

DIFFUSION_SCHEDULER_REGISTRY = Registry("diffusion scheduler", "MODEL.SDMODEL.SCHEDULER_CONFIG.NAME")

for _name, _class in {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}.items():
    DIFFUSION_SCHEDULER_REGISTRY.register_later(_name, "diffusers", _class)
