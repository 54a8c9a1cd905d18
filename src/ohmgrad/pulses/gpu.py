"""The pulsed update on a GPU: the law of `eager`, compiled by Triton from the same sources.

Two kernels and no word to the host: `gpu_trains.prepare` makes the pulse trains of a mini-batch, and `gpu_kernel.rows`
takes them to the weights. Triton compiles them anew for each family of devices, dtype and kind of train.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ohmgrad import random
from ohmgrad.devices.base import Device, Params, response_arguments
from ohmgrad.pulses import merge
from ohmgrad.pulses.gpu_kernel import rows
from ohmgrad.pulses.gpu_trains import prepare
from ohmgrad.pulses.settings import TRAINS, Lines, PulsedUpdate
from ohmgrad.pulses.triton_target import TRITON
from ohmgrad.vocabulary import retarget

# One warp to a block: its votes on how many pulses are left need no barrier. Four float32 weights to a thread: 128
# registers at most (sm_90, all parameters planes), so that 16 blocks share a multiprocessor.
ROWS, COLUMNS, WARPS = 2, 64, 1
LINES = 512
STREAMS = (random.Stream.X_BITS, random.Stream.D_BITS, random.Stream.PULSE, random.Stream.COUNT)

Launch = Callable[[Tensor, Tensor, float | Tensor, int, int | Tensor, Tensor | None, Tensor | None], Tensor]


def launcher(
    device: Device, params: Params, settings: PulsedUpdate, seed: int, w: Tensor, lines: Lines | None = None
) -> Launch:
    """The kernels with all that does not change from call to call.

    Args:
        device: of any family whose response's source can be read. params: its elements' parameters, numbers or planes
            (out, in), on the GPU.
        w: the weight, (out, in), contiguous.
        lines: what drives the lines, where the crossbar shares them.

    Returns:
        launch(x, d, lr, batch, cycle, counts, moved) -> pulses: as `eager.pulse`; x and d contiguous and of w's dtype;
        counts, (out, in) int64 or None, is added to; moved, uint8 or None, is set where pulses arrived. lr (float64)
        and cycle (int64) may be tensors without dimensions on the GPU: then a CUDA graph reads them anew at each
        replay. pulses is such a tensor too, float64; NaN where x or d held NaN or infinity in a sample, which is then
        left out.
    """
    home = w.device
    n_out, n_in = w.shape
    train, train_options = _train(settings)
    n_words = settings.bit_length // 32 + 1 if settings.train == "stochastic" else 1
    lines = lines or Lines(seed, device.granularity)
    numbers = torch.tensor(
        [lines.granularity, device.dw_min_ctoc, settings.resolution], dtype=torch.float64, device=home
    )
    seeds = {random.Stream.PULSE: seed}  # the noise of its pulses is a crossbar's own
    words = [word for s in STREAMS for word in random.root(seeds.get(s, lines.seed), s)]
    keys = torch.tensor(words, dtype=torch.int64, device=home)
    # Fewer weights to a thread where each takes more registers: else they spill.
    share = (1 if w.element_size() == 4 else 4) * (2 if type(device).tables else 1)
    columns = min(COLUMNS // share, triton.next_power_of_2(n_in))
    n_blocks = triton.cdiv(n_in, columns) * triton.cdiv(n_out, ROWS)
    n_line_blocks = triton.cdiv(n_in, LINES) + triton.cdiv(n_out, LINES)
    arguments, law = _device(device, params, settings, w)

    def launch(
        x: Tensor,
        d: Tensor,
        lr: float | Tensor,
        batch: int,
        cycle: int | Tensor,
        counts: Tensor | None,
        moved: Tensor | None,
    ) -> Tensor:
        pulses = torch.zeros((), dtype=torch.float64, device=home)
        if not batch or not settings.bit_length:
            return pulses
        lr, cycle = _scalar(lr, torch.float64, home), _scalar(cycle, torch.int64, home)
        before = counts.clone() if moved is not None and counts is not None else None
        if moved is not None and counts is None:
            counts = torch.zeros_like(w, dtype=torch.int64)
        length = torch.empty(batch, dtype=torch.int32, device=home)
        x_lines, d_lines = (torch.empty((batch, n_words, n), dtype=torch.int32, device=home) for n in (n_in, n_out))
        trains = (n_in, n_out, n_words, lr, numbers, keys, cycle, length)
        prepare[(batch, n_line_blocks, n_words)](
            x, d, *trains, x_lines, d_lines, pulses, *train_options, LINES, enable_fp_fusion=False
        )
        total = tl.int32 if batch * settings.bit_length < 2**31 else tl.int64
        rows[(n_blocks,)](
            *(w, x_lines, d_lines, batch, *trains, pulses, counts),
            *(*arguments, *law, train, total, ROWS, columns),
            num_warps=WARPS,
            # Mean counts are rounded, as in `train`, before the noise is added.
            enable_fp_fusion=settings.train == "stochastic",
        )
        if moved is not None and counts is not None:
            moved |= counts > 0 if before is None else counts > before
        return pulses

    return launch


def _scalar(value: float | Tensor, dtype: torch.dtype, home: torch.device) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=dtype, device=home)


def _train(settings: PulsedUpdate) -> tuple[int, tuple[Any, ...]]:
    """The kind of train by number, and the constants of `prepare`."""
    is_shared = settings.update_management or settings.bit_length_management
    kind, is_stepped = TRAINS.index(settings.train), settings.resolution > 0.0
    is_rounded = is_stepped and settings.stochastic_rounding
    return kind, (settings.bit_length, settings.bit_length_management, is_shared, kind, is_stepped, is_rounded)


def _device(device: Device, params: Params, settings: PulsedUpdate, like: Tensor) -> tuple[tuple[Any, ...], ...]:
    """What `rows` takes of a device: its parameters, and the constants that say what they are."""
    family = type(device)
    held = {k: (len(v) - 1, *v, v[-1]) if k in family.tables else v for k, v in params.items()}  # see `interpolate`
    given = {k: torch.as_tensor(v, dtype=like.dtype, device=like.device).contiguous() for k, v in held.items()}
    names = response_arguments(family)
    tables = tuple(given[k] for k in names if k in family.tables)
    names = tuple(k for k in names if k not in family.tables)
    at = names.index("dw_min") if "dw_min" in names else len(names)
    shared = tuple(given[k] for k in ("w_min", "w_max", "dw_up", "dw_down"))
    before, after = (tuple(given[k] for k in part) for part in (names[:at], names[at + 1 :]))
    # Bit k is set where the k-th of all these is a plane, not one number for all devices.
    planes = sum((v.numel() > 1) << k for k, v in enumerate((*shared, *before, *after)))
    is_merged = settings.merge and merge.is_exact(device)
    law = at < len(names), device.is_affine, is_merged, device.ctoc == "additive", device.dw_min_ctoc > 0.0
    noise = _compiled(device.noise) if device.noise and device.ctoc == "own" else None
    return (*shared, before, after, tables), (planes, _compiled(family.response), noise, *law)


@cache
def _compiled(function: Callable[..., Any]) -> Any:
    return retarget(function, TRITON)
