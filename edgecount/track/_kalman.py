"""Kalman filters of a whole table of tracks at once, one constant-velocity filter per axis.

Each of the four axes ``cx, cy, w, h`` has a state (value, rate) and a symmetric 2×2
covariance. Axes are independent, so that everything is closed-form, element by element, in
float32 and in a fixed order of operations. Rows of a state, all (row, track) float32:

    0..3 value   4..7 rate   8..11 var(value)   12..15 cov(value, rate)   16..19 var(rate)

Source: Bar-Shalom, Li, Kirubarajan, "Estimation with Applications to Tracking and
Navigation" (2001), section 6.2.2 (white-noise acceleration).
"""

import math

import numpy as np

from edgecount.records import Float32Array

VALUE, RATE, VAR, COV, RATE_VAR = (slice(4 * i, 4 * i + 4) for i in range(5))
ROWS = 20

_SIZE_RATE = slice(6, 8)


def predict(state: Float32Array, dt: float, noise: Float32Array, size_decay: float) -> None:
    """Advance all tracks in place by ``dt`` seconds.

    Args:
        state: (20, N) as above.
        dt: Seconds.
        noise: (4, N) spectral density of the acceleration of each axis, px²/s³.
        size_decay: Time constant in seconds with which the rates of ``w`` and ``h`` fade; a
            track that is not seen must not grow for ever. The covariance is left as it is.
    """
    t = np.float32(dt)
    rate, cov, rate_var = state[RATE], state[COV], state[RATE_VAR]
    moved = cov + t * rate_var
    state[VALUE] += t * rate
    state[VAR] += t * (cov + moved) + np.float32(dt**3 / 3) * noise
    cov[...] = moved + np.float32(dt**2 / 2) * noise
    rate_var += t * noise
    state[_SIZE_RATE] *= np.float32(math.exp(-dt / size_decay))


def update(state: Float32Array, measured: Float32Array, noise: Float32Array) -> None:
    """Give each track a measurement, in place.

    Args:
        state: (20, N), the predicted state.
        measured: (4, N) ``cx, cy, w, h``.
        noise: (4, N) variance of the measurement.
    """
    value, rate, var, cov, rate_var = (state[r] for r in (VALUE, RATE, VAR, COV, RATE_VAR))
    innovation = measured - value
    total = var + noise
    gain = var / total
    rate_gain = cov / total
    value += gain * innovation
    rate += rate_gain * innovation
    rate_var -= rate_gain * cov
    np.multiply(gain, noise, out=var)
    np.multiply(rate_gain, noise, out=cov)
