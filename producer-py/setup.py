"""The extension: the C library's own sources and a thin skin, for every CPython from 3.11 on."""

import shutil
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

# The library stands beside this directory in the repository, and inside it in a source distribution.
REPOSITORY = not Path("producer-c").is_dir()
SHARED = [f"{'..' if REPOSITORY else '.'}/{folder}" for folder in ("include", "producer-c")]
SKIN = "src/mlwatch"
# Free-threaded interpreters before 3.15 have no limited API.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")


class SelfContained(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for folder in SHARED if REPOSITORY else ():
            shutil.copytree(folder, Path(base_dir, Path(folder).name), ignore=shutil.ignore_patterns("*.map"))


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
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
            py_limited_api=LIMITED,
            extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra"],
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
    cmdclass={"sdist": SelfContained},
)
