"""Reference values for the tests of src/evaluation, from numpy, scipy and mpmath.

python scripts/evaluation_reference.py correlation|regression|negative_binomial
"""

import sys

import mpmath
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom, poisson, spearmanr


def at(i, j, m):
    """The whole-number table that the tests build too."""
    return (i * 73 + j * 151 + 7 * i * i * (j + 1)) % m


def correlation():
    n = range(40)
    first = np.array([[at(i, j, 23) / 4.0 for j in range(3)] for i in n])
    second = np.array(
        [[at(i, j, 23) * at(i, j + 1, 11) - 3.0 * at(i, 2 * j, 19) for j in range(2)] for i in n]
    )
    print("pearson", np.corrcoef(first, second, rowvar=False)[:3, 3:].ravel().tolist())
    print("spearman", spearmanr(first, second)[0][:3, 3:].ravel().tolist())


def regression():
    n = range(60)
    x = np.array([[1.0] + [at(i, j, 29) for j in range(4)] for i in n])
    y = np.array(
        [[at(i, j, 29) - 0.5 * at(i, j + 2, 29) + at(i, j + 5, 31) + 100.0 for j in range(2)] for i in n]
    )
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    print("r2", np.mean(1 - (residual**2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)))


def negative_binomial():
    cases = [(0, 2.5, 0.7), (3, 2.5, 0.7), (40, 3.0, 1e-3), (700, 650.0, 12.0), (5, 4.0, 1e6), (90_000, 5e4, 2.0)]
    for x, mu, theta in cases:
        # scipy subtracts log-gammas, which leaves nine digits at theta = 1e6; fifty digits leave sixteen.
        mpmath.mp.dps = 50
        m, t = mpmath.mpf(mu), mpmath.mpf(theta)
        exact = (
            mpmath.loggamma(x + t) - mpmath.loggamma(t) - mpmath.loggamma(x + 1)
            + t * mpmath.log(t / (t + m)) + x * mpmath.log(m / (t + m))
        )
        print("logpmf", x, mu, theta, float(exact), "scipy", float(nbinom.logpmf(x, theta, theta / (theta + mu))))
    # Two genes over 30 training cells and 10 validation cells; the first is overdispersed, the second is not.
    library = np.array([50.0 + at(i, 3, 97) for i in range(40)])
    genes = [[at(i, 0, 7) * at(i, 1, 5) for i in range(40)], [2 + (i % 2) for i in range(40)]]
    total = 0.0
    for counts in genes:
        counts = np.array(counts)
        mu = library * counts[:30].sum() / library[:30].sum()

        def nll(u, cells):
            theta = np.exp(u)
            return -nbinom.logpmf(counts[cells], theta, theta / (theta + mu[cells])).sum()

        train, validation = slice(0, 30), slice(30, 40)
        best = minimize_scalar(nll, bounds=(-5, 12), args=(train,), method="bounded", options={"xatol": 1e-10})
        if best.x > 11.9:
            theta, value = np.inf, -poisson.logpmf(counts[validation], mu[validation]).sum()
        else:
            theta, value = np.exp(best.x), nll(best.x, validation)
        total += value
        print("theta", theta, "validation nll", value)
    print("nll per cell", repr(float(total / 10)))


if __name__ == "__main__":
    {"correlation": correlation, "regression": regression, "negative_binomial": negative_binomial}[sys.argv[1]]()
