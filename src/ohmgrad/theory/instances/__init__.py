"""Problems that can be solved exactly, on which the theorems can be tested: loss, gradient, noise, optimum, constants.

Weights are (*replica, out, in), float64: replicas are independent runs side by side. `ohmgrad.theory.descend` trains
any of them with any algorithm on any device.

| instance | f(W) | tests |
|---|---|---|
| `LowerBound` | L/2 ||W - W*||^2, noise of two values that follows the state | Wu et al. 2024, Thm. 3 |
| `Quadratic` | 1/2 sum h (w - w*)^2, noise of a stated law | fixed points, penalties, offsets |
| `LeastSquares` | ||X W' - Y||^2 / (2 n) | the penalty in D dimensions |
| `LogisticRegression` | mean log(1 + exp(-y x.w)) + ridge/2 ||w||^2 | gradients that are not linear |
| `WeightProgramming` | E ||(W - B) x||^2 / 2, x ~ N(0, 1) | few states, offsets, pulses of rank 1 |
"""

from ohmgrad.theory.instances.base import Instance
from ohmgrad.theory.instances.programming import LowerBound, Quadratic, WeightProgramming
from ohmgrad.theory.instances.regression import LeastSquares, LogisticRegression

__all__ = ["Instance", "LeastSquares", "LogisticRegression", "LowerBound", "Quadratic", "WeightProgramming"]
