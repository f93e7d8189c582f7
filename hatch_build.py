"""Compile the decoder of plain rows while the package is installed, if there is a C compiler.

Without one the installation goes on: the pure decoder gives the same rows, more slowly.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path(__file__).parent / "src/cis490/episodes"


def compile_rows(source: Path, library: Path) -> str | None:
    """Compile `source` to a shared library; returns what went wrong, None if nothing did."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    built = library.with_name(f".{library.name}.{os.getpid()}")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    flags = ["-O3", "-shared", "-fPIC", f'-DCIS490_SOURCE="{digest}"']
    try:
        command = [*compiler, *flags, "-o", str(built), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        built.replace(library)  # a process that runs with the old one keeps it
    except OSError as error:
        return f"{compiler[0]}: {error.strerror}"
    except subprocess.CalledProcessError as error:
        return str(error.stderr)
    finally:
        built.unlink(missing_ok=True)
    return None


class CustomBuildHook(BuildHookInterface):
    """What hatchling runs before it collects the files of a wheel, an editable one included."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Compile, and say so in the wheel's tag; leave a pure wheel if that fails."""
        library = FOLDER / "_rows.so"
        if problem := compile_rows(FOLDER / "_rows.c", library):
            library.unlink(missing_ok=True)
            self.app.display_warning(
                f"decoding will be slower, for it cannot be compiled: {problem}"
            )
            return
        build_data["artifacts"].append(f"/{library.relative_to(self.root)}")
        build_data["pure_python"] = False
        # It needs no Python of a certain version, only this platform.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
