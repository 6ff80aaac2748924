"""Install the package with its optional compiled extension: ``pip install .``."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
KERNELS = "fastreid/evaluation/rank_cylib"


def load_kernel_build() -> ModuleType:
    """The kernels' own setup.py, by path: importing the package would need its requirements."""
    spec = importlib.util.spec_from_file_location("rank_cylib_setup", ROOT / KERNELS / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_version() -> str:
    text = (ROOT / "fastreid" / "__init__.py").read_text()
    return re.search(r'__version__ = "(.+)"', text).group(1)


def read_requirements() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return [line for line in lines if line]


kernel_build = load_kernel_build()
setup(
    name="fastreid",
    version=read_version(),
    description="SD-ReID: aerial-ground person re-identification",
    python_requires=">=3.10",
    packages=[*find_packages(include=["fastreid", "fastreid.*"]), "fastreid.configs"],
    package_dir={"fastreid.configs": "configs"},
    package_data={
        KERNELS.replace("/", "."): ["*.pyx"],
        "fastreid.configs": ["*/*.yml"],
        "fastreid.visualization": ["page/*"],
    },
    entry_points={"console_scripts": ["fastreid = fastreid.cli:main"]},
    install_requires=read_requirements(),
    extras_require={
        "export": ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18"],
        "tracking": ["wandb>=0.18"],
    },
    ext_modules=[
        kernel_build.rank_extension(f"{KERNELS.replace('/', '.')}.rank_cy", f"{KERNELS}/rank_cy.pyx")
    ],
    cmdclass={"build_ext": kernel_build.BuildOptionalExtension},
)
