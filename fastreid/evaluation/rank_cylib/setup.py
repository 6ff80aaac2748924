"""Build the rank kernels in place: ``python setup.py build_ext --inplace`` in this folder.

The extension is optional: when it cannot be built, the build says why and goes on without it. The
repository's own ``setup.py`` takes the command class and the flags from here.
"""

import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildOptionalExtension(build_ext):
    """Compile with OpenMP; without it where the compiler has none; else warn and leave the extension out."""

    def build_extension(self, ext: Extension) -> None:
        msvc = self.compiler.compiler_type == "msvc"
        optimise = ["/O2"] if msvc else ["-O3"]
        openmp = ["/openmp"] if msvc else ["-fopenmp"]
        for flags in (openmp, []):
            ext.extra_compile_args = optimise + flags
            ext.extra_link_args = [] if msvc else flags
            try:
                super().build_extension(ext)
                return
            # Cython, the compiler and the linker each raise errors of their own classes
            except Exception as error:
                kind = "with" if flags else "without"
                print(f"building {ext.name} {kind} OpenMP failed: {error}", file=sys.stderr)
        print(
            f"WARNING: {ext.name} is left out: rank evaluation will count in NumPy, which is slower."
            " To build it, install a C compiler and Cython, then run this again.",
            file=sys.stderr,
        )


def rank_extension(name: str, source: str) -> Extension:
    """The extension module `name` from the ``.pyx`` file `source`."""
    return Extension(name, [source], optional=True)


if __name__ == "__main__":
    setup(
        name="rank_cy",
        ext_modules=[rank_extension("rank_cy", "rank_cy.pyx")],
        cmdclass={"build_ext": BuildOptionalExtension},
        py_modules=[],
    )
