"""Compile our C while the package is installed, if there is a compiler.

Without one the installation goes on: each compiled function has a twin in Python.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = sorted((Path(__file__).parent / "src").rglob("_*.c"))


def compile_library(source: Path, library: Path) -> str | None:
    """Compile `source` to a shared library; returns what went wrong, None if nothing did."""
    built = library.with_name(f".{library.name}.{os.getpid()}")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    flags = ["-O3", "-ffp-contract=off", "-shared", "-fPIC", f'-DCIS490_SOURCE="{digest}"']
    try:
        try:
            command = [*_compiler(), *flags, "-o", str(built), str(source), "-lm"]
            subprocess.run(command, check=True, capture_output=True, text=True)
            built.replace(library)  # a process that runs with the old one keeps it
        finally:
            built.unlink(missing_ok=True)
    except OSError as error:  # a folder that cannot be written to, too
        return f"{error.filename}: {error.strerror}"
    except ValueError as error:
        return f"CC: {error}"
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    return None


def _compiler() -> list[str]:
    """What CC says; else what this Python was compiled with, if that is here; else cc."""
    if asked := shlex.split(os.environ.get("CC", "")):
        return asked
    own = shlex.split(sysconfig.get_config_var("CC") or "")
    return own if own and shutil.which(own[0]) else ["cc"]


class CustomBuildHook(BuildHookInterface):
    """What hatchling runs before it collects the files of a wheel, an editable one included."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile, and say so in the wheel's tag; leave a pure wheel if that fails."""
        for source in SOURCES:
            library = source.with_suffix(".so")
            if problem := compile_library(source, library):
                with suppress(OSError):  # read-only; of another source it is not used anyway
                    library.unlink(missing_ok=True)
                self.app.display_warning(f"{source.name} not compiled, Python does it: {problem}")
                continue
            build_data["artifacts"].append(f"/{library.relative_to(self.root)}")
            build_data["pure_python"] = False
            # It needs no Python of a certain version, only this platform.
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
