"""Kalman filters of a whole table of tracks at once, one constant-velocity filter per axis.

Each of the four axes ``cx, cy, w, h`` has a state (value, rate) and a symmetric 2×2
covariance. Axes are independent, so that everything is closed-form, element by element, in
float32 and in a fixed order of operations. Rows of a state, all (row, track) float32:

    0..3 value   4..7 rate   8..11 var(value)   12..15 cov(value, rate)   16..19 var(rate)

Source: Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and
Navigation" (2001), section 6.2.2 (white-noise acceleration); a finite ``decay`` of the rate
makes it section 8.2's exponentially correlated velocity, its noise kept in the first order.
"""

import math

import numpy as np

from edgecount.records import Float32Array

VALUE, RATE, VAR, COV, RATE_VAR = (slice(4 * i, 4 * i + 4) for i in range(5))
ROWS = 20

_SIZE_RATE, _SIZE_COV, _SIZE_RATE_VAR = slice(6, 8), slice(14, 16), slice(18, 20)


def predict(state: Float32Array, dt: float, noise: Float32Array, size_decay: float) -> None:
    """Advance all tracks in place by ``dt`` seconds.

    Args:
        state: (20, N) as above.
        dt: Seconds.
        noise: (4, N) spectral density of the acceleration of each axis, px²/s³.
        size_decay: Time constant in seconds with which the rates of ``w`` and ``h`` fade.
    """
    t = np.float32(dt)
    rate, cov, rate_var = state[RATE], state[COV], state[RATE_VAR]
    moved = cov + t * rate_var
    state[VALUE] += t * rate
    state[VAR] += t * (cov + moved) + np.float32(dt**3 / 3) * noise
    cov[...] = moved + np.float32(dt**2 / 2) * noise
    rate_var += t * noise
    fade = np.float32(math.exp(-dt / size_decay))
    state[_SIZE_RATE] *= fade
    state[_SIZE_COV] *= fade
    state[_SIZE_RATE_VAR] *= fade * fade


def update(state: Float32Array, measured: Float32Array, noise: Float32Array) -> Float32Array:
    """Give the state after a measurement of each track.

    Args:
        state: (20, N), the predicted state; not changed.
        measured: (4, N) ``cx, cy, w, h``.
        noise: (4, N) variance of the measurement.

    Returns:
        (20, N), a new array.
    """
    out = np.empty_like(state)
    innovation = measured - state[VALUE]
    total = state[VAR] + noise
    gain = state[VAR] / total
    rate_gain = state[COV] / total
    out[VALUE] = state[VALUE] + gain * innovation
    out[RATE] = state[RATE] + rate_gain * innovation
    out[VAR] = gain * noise
    out[COV] = rate_gain * noise
    out[RATE_VAR] = state[RATE_VAR] - rate_gain * state[COV]
    return out
