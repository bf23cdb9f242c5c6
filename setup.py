"""Builds the compiled modules of the log; everything else is in pyproject.toml.

RAFTCHAT_CHECKED=1 builds them with Cython's and the compiler's run-time checks, for tests.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

CHECKED = os.environ.get("RAFTCHAT_CHECKED") == "1"

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"raftchat.{name}",
                [f"src/raftchat/{name}.pyx"],
                extra_compile_args=["-O1", "-g", "-fsanitize=undefined"] if CHECKED else ["-O3"],
                extra_link_args=["-fsanitize=undefined"] if CHECKED else [],
            )
            for name in (
                "_log",
                "_log_check",
                "_log_compact",
                "_log_directory",
                "_log_header",
                "_log_index",
                "_log_index_writer",
                "_log_lookup",
                "_log_mapping",
                "_log_part",
                "_log_postings",
                "_log_reader",
                "_log_record",
                "_log_scan",
                "_log_segment",
                "_log_sync",
            )
        ],
        build_dir="build/checked" if CHECKED else "build",
        include_path=["src"],
        force=CHECKED,
        compiler_directives={
            "language_level": 3,
            "boundscheck": CHECKED,
            "wraparound": True,
            "cdivision": not CHECKED,
            "initializedcheck": CHECKED,
        },
    )
)
