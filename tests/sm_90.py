"""Compiles Triton's kernels for sm_90 on a machine without a GPU.

Triton needs a driver only to ask for the target and to launch: a stand-in answers the one, and the other is left out.
"""

import os
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import torch


class Target:
    """Stands in for a driver: no GPU, but what a kernel is compiled for."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


def is_elsewhere() -> bool:
    """Whether kernels run here, on a GPU or in the interpreter, and other tests see to them."""
    return os.environ.get("TRITON_INTERPRET") == "1" or torch.cuda.is_available()


def compile_only(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *names: str) -> dict:
    """From now on these kernels of a module are compiled, not launched: a table of what came of it, by name."""
    from triton.runtime import driver

    kernels = {}
    monkeypatch.setattr(driver, "_active", Target())

    def compiling(name: str, run):
        def instead(*args, warmup, **options):
            kernels[name] = run(*args, warmup=True, **options)

        return instead

    for name in names:
        kernel = getattr(module, name)
        monkeypatch.setattr(kernel, "run", compiling(name, kernel.run))
    return kernels


def usage(kernel, folder: Path) -> dict[str, int]:
    """Registers and bytes of local memory, which is where spills go, for each thread."""
    import triton

    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    tool = Path(triton.knobs.nvidia.ptxas.path).with_name("cuobjdump")
    said = subprocess.run([tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True).stdout
    return {name: int(n) for name, n in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", said)}
