"""The extension: the C library's own sources and a thin skin, for every CPython from 3.11 on."""

from pathlib import Path

from setuptools import Extension, setup

SHARED = ["../include", "../producer-c"]
SKIN = "src/mlwatch"


def depends():
    folders = [*SHARED, SKIN]
    return sorted(str(path) for folder in folders for path in Path(folder).glob("*.[ch]"))


setup(
    ext_modules=[
        Extension(
            "mlwatch._core",
            sources=[f"{SKIN}/_core.c"],
            depends=depends(),
            include_dirs=SHARED,
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"],
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
