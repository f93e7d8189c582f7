"""A grid as 16-bit codes: two bytes a value, of which no mask and no float is kept.

A code counts steps above the least value that its channel took in its episode, in *model space*:
the signed log1p of channels whose rates span decades (`Channel.log`), the values themselves of the
others. Its step is 1/65534 of the range that the channel covered there, so no unit and no machine
needs a scale agreed upon beforehand.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cis490.channels import CHANNELS

Codes = NDArray[np.int16]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Real = TypeVar("Real", bound=np.floating)

MISSING: Final = -32768
LEAST: Final = -32767  # the code of the least value
STEPS: Final = 65534  # from the least code to the largest, 32767

_LOG: Final = np.array([channel.log for channel in CHANNELS])
_RAW: Final = np.flatnonzero(~_LOG)
# Episodes encoded at once: enough to make calls few, few enough to stay in the processor's cache.
_TOGETHER: Final = 4
# Below it float32 loses digits, and its inverse would be infinite.
_SMALLEST: Final = float(np.finfo(np.float32).tiny)
_LARGEST: Final = float(np.finfo(np.float32).max)


def encode(values: Floats, mask: Mask) -> tuple[Codes, Floats, Floats]:
    """Encode the grids of n alike episodes; C is the number of `channels.CHANNELS`, in their order.

    An episode's codes do not depend, to the bit, on those beside it.

    Args:
        values: float32 (C, n, T) in raw units, finite where measured.
        mask: bool (C, n, T), True where measured; what it hides is ignored, NaN included.

    Returns:
        Codes int16 (n, T, C), `MISSING` where nothing was measured; scale float32 (n, C), the step
        of a code, 0 if the channel is constant in the episode, or covers less than 2e-33, of which
        a step would be no normal float32; base float32 (n, C), its least value, NaN if it was never
        measured there. Both in model space, as `decode` takes them.
    """
    n_channels, n_episodes, n_steps = values.shape
    codes = np.empty((n_episodes, n_steps, n_channels), np.int16)
    scale = np.zeros((n_episodes, n_channels), np.float32)
    base = np.full((n_episodes, n_channels), np.nan, np.float32)
    if n_steps:
        for start in range(0, n_episodes, _TOGETHER):
            some = slice(start, start + _TOGETHER)
            codes[some], scale[some], base[some] = _encode(values[:, some], mask[:, some])
    return codes, scale, base


def _encode(values: Floats, mask: Mask) -> tuple[Codes, Floats, Floats]:
    """`encode` of a few episodes of at least one step."""
    measured: Mask = np.asarray(mask.any(axis=2))
    holed: Mask = ~np.asarray(mask.all(axis=2))
    x = values.copy()
    # A measured value in the place of each missing one: the range and the cast meet no other.
    first = np.take_along_axis(values, mask.argmax(axis=2)[:, :, None], axis=2)[holed]
    first[~measured[holed]] = 0
    x[holed] = np.where(mask[holed], values[holed], first)
    x[_RAW] *= np.float32(0.5)  # or the range of a gauge could exceed float32
    raw = x[_RAW]
    x = signed_log1p(x)
    x[_RAW] = raw
    low, high = x.min(axis=2) + np.float32(0), x.max(axis=2)  # -0 is 0, whoever is beside it
    step = ((high.astype(np.float64) - low) / STEPS).astype(np.float32)
    step[step < _SMALLEST] = 0
    per_step = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
    x -= low[:, :, None]
    x *= per_step[:, :, None]
    x += np.float32(LEAST)
    np.rint(x, out=x)
    codes = x.astype(np.int16)
    codes[~mask] = MISSING
    unit = np.where(_LOG, np.float32(1), np.float32(2))
    base = np.where(measured, low, np.float32(np.nan))
    return codes.transpose(1, 2, 0), step.T * unit, base.T * unit


def decode(codes: Codes, scale: Floats, base: Floats) -> Floats:
    """Values in model space, NaN where missing: base + (code - LEAST) * scale.

    Args:
        codes: int16 (..., C).
        scale, base: float32, of a shape that broadcasts to that of `codes`.

    Returns:
        float32 (..., C). A least value is exact, any other within half a `scale` and rounding.
    """
    x = (codes.astype(np.float64) - LEAST) * scale + base
    x[codes == MISSING] = np.nan
    return _float32(x)


def to_raw(x: Floats) -> Floats:
    """Raw units of values (..., C) in model space, C as in `encode`."""
    raw = x.astype(np.float64)
    log = raw[..., _LOG]
    raw[..., _LOG] = np.copysign(np.expm1(np.abs(log)), log)
    return _float32(raw)


def _float32(x: NDArray[np.float64]) -> Floats:
    """Rounding may have led an end of the range just beyond what float32 holds."""
    return np.clip(x, -_LARGEST, _LARGEST).astype(np.float32)


def signed_log1p(x: NDArray[Real]) -> NDArray[Real]:
    """sign(x) log(1 + |x|), elementwise, in the precision of x."""
    log: NDArray[Real] = np.log1p(np.abs(x))
    return np.copysign(log, x, out=log) if (x < 0).any() else log
