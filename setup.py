"""Builds the one compiled module; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [Extension("raftchat._log", ["src/raftchat/_log.pyx"], extra_compile_args=["-O3"])],
        language_level=3,
    )
)
