"""The filters against the textbook's matrices, in float64."""

import numpy as np

from edgecount.track import _kalman


def a_state(count: int) -> np.ndarray:
    random = np.random.default_rng(2)
    state = random.uniform(1, 5, (_kalman.ROWS, count)).astype(np.float32)
    state[_kalman.VAR] += 5  # positive definite
    return state


def matrices(state: np.ndarray, axis: int, track: int) -> "tuple[np.ndarray, np.ndarray]":
    value, rate, var, cov, rate_var = state[axis::4, track].astype(np.float64)
    return np.array([value, rate]), np.array([[var, cov], [cov, rate_var]])


def test_prediction_is_the_textbooks() -> None:
    state, dt = a_state(3), 0.2
    noise = np.full((4, 3), 2.0, np.float32)
    after = state.copy()
    _kalman.predict(after, dt, noise, size_decay=1e9)
    step = np.array([[1, dt], [0, 1]])
    added = 2.0 * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    for axis in range(4):
        for track in range(3):
            mean, covariance = matrices(state, axis, track)
            got_mean, got_covariance = matrices(after, axis, track)
            np.testing.assert_allclose(got_mean, step @ mean, rtol=1e-5)
            np.testing.assert_allclose(
                got_covariance, step @ covariance @ step.T + added, rtol=1e-5
            )


def test_update_is_the_textbooks() -> None:
    state = a_state(3)
    measured = np.full((4, 3), 4.0, np.float32)
    noise = np.full((4, 3), 1.5, np.float32)
    after = state.copy()
    _kalman.update(after, measured, noise)
    for axis in range(4):
        for track in range(3):
            mean, covariance = matrices(state, axis, track)
            gain = covariance[:, 0] / (covariance[0, 0] + 1.5)
            got_mean, got_covariance = matrices(after, axis, track)
            np.testing.assert_allclose(got_mean, mean + gain * (4.0 - mean[0]), rtol=1e-5)
            expected = covariance - np.outer(gain, covariance[0])
            np.testing.assert_allclose(got_covariance, expected, rtol=1e-4, atol=1e-5)


def test_growth_fades() -> None:
    state = a_state(1)
    after = state.copy()
    _kalman.predict(after, 1.0, np.zeros((4, 1), np.float32), size_decay=1.0)
    np.testing.assert_allclose(after[6:8], state[6:8] / np.e, rtol=1e-5)
    np.testing.assert_array_equal(after[4:6], state[4:6])


def test_two_half_steps_are_one_step() -> None:
    noise = np.full((4, 2), 3.0, np.float32)
    once, twice = a_state(2), a_state(2)
    _kalman.predict(once, 0.2, noise, size_decay=1e9)
    for _ in range(2):
        _kalman.predict(twice, 0.1, noise, size_decay=1e9)
    np.testing.assert_allclose(once, twice, rtol=1e-5)
