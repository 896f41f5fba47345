"""The native core (src/ikeway/native): plain C that needs a C compiler and nothing else, not even Python's headers.

Optional: without a compiler Ikeway is installed all the same and moves packets in Python. Everything else about the
package stands in pyproject.toml.
"""

from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("src/ikeway/native")

setup(
    ext_modules=[
        Extension(
            "ikeway.native._core",
            sources=[str(path) for path in sorted(FOLDER.glob("*.c"))],
            depends=[str(path) for path in sorted(FOLDER.glob("*.h"))],
            extra_compile_args=[
                "-std=c11",
                "-O3",
                "-Wall",
                "-Wextra",
                "-Wconversion",
                "-Wshadow",
                "-fvisibility=hidden",
            ],
            libraries=["dl"],
            optional=True,
        )
    ]
)
