"""Least squares over the kept entries, and the choice of which to keep."""

import numpy as np

from tfprune.deciding.selection import smallest
from tfprune.oneshot.repair.least_squares import LeastSquares


def make_problem(features=6, outputs=3, rows=400, seed=0, ridge=1e-6):
    generator = np.random.default_rng(seed)
    mixing = np.eye(features) + 0.3 * generator.normal(size=(features, features))
    data = generator.normal(size=(rows, features)) @ mixing
    matrix = generator.normal(size=(1, features, outputs))
    moment = (data.T @ data / rows)[None]
    return data, moment, matrix, LeastSquares(moment, moment @ matrix, matrix, rows, ridge)


def test_the_fit_is_the_least_squares_solution_on_the_kept_entries():
    data, _, matrix, problem = make_problem()
    kept = np.random.default_rng(1).random(matrix.shape) < 0.5
    fitted = problem.fit(kept)
    for column in range(matrix.shape[2]):
        support = kept[0, :, column]
        expected = np.linalg.lstsq(data[:, support], data @ matrix[0, :, column], rcond=None)[0]
        np.testing.assert_allclose(fitted[0, support, column], expected, rtol=2e-3, atol=2e-3)
    assert not fitted[~kept].any()


def test_with_everything_kept_the_matrix_stays_as_it_was():
    _, _, matrix, problem = make_problem()
    np.testing.assert_allclose(problem.fit(np.ones(matrix.shape, bool)), matrix, rtol=1e-5)


def test_a_feature_that_never_shows_keeps_its_weights():
    moment = np.diag([1.0, 0.0])[None]
    matrix = np.array([[[2.0], [3.0]]])
    fitted = LeastSquares(moment, np.array([[[5.0], [0.0]]]), matrix, 100).fit(np.ones((1, 2, 1), bool))
    np.testing.assert_allclose(fitted[0, :, 0], [5.0, 3.0], rtol=0.01)  # the ridge holds the first back a little


def test_the_choice_loses_less_than_that_by_magnitude():
    data, _, matrix, problem = make_problem(features=40, outputs=4, seed=3)
    outputs = data @ matrix[0]

    def error(kept):
        return float(np.sum((outputs - data @ problem.fit(kept)[0]) ** 2))

    chosen = problem.choose(lambda use, share: ~smallest([use], round(80 * share))[0])
    assert np.count_nonzero(chosen) == 80
    assert error(chosen) < 0.9 * error(~smallest([np.abs(matrix)], 80)[0])
    assert problem.loss(problem.fit(chosen)) < problem.loss(np.where(chosen, matrix, 0.0))


def test_few_rows_do_not_support_a_choice():
    assert make_problem(features=6, rows=24)[3].supports_choice
    assert not make_problem(features=6, rows=23)[3].supports_choice
