"""High-precision table of the negative binomial log density and its partials, for tests/negative_binomial.rs.

Usage: python scripts/negative_binomial_table.py > tests/negative_binomial_table.csv     (needs mpmath; about a minute)

Columns: x, mu, log_theta, log_p, d log_p / d log mu, d log_p / d log theta. Every mu and log_theta is a number that
single precision holds exactly, so one table serves f32 and f64. Results carry 20 digits, computed with 80.
"""

import random
import struct

from mpmath import digamma, exp, log, loggamma, mp, mpf, nstr

mp.dps = 80


def single(value):
    """The nearest single-precision number."""
    return struct.unpack("f", struct.pack("f", value))[0]


def row(x, mu, log_theta):
    """One line: inputs as they are, results to 20 digits."""
    x_, mu_, theta = mpf(x), mpf(mu), exp(mpf(log_theta))
    common = log(theta + mu_)
    value = theta * (log(theta) - common) + x_ * (log(mu_) - common) + loggamma(x_ + theta) - loggamma(theta) - loggamma(x_ + 1)
    by_log_mu = theta * (x_ - mu_) / (theta + mu_)
    by_log_theta = theta * (log(theta) - common + 1 - (x_ + theta) / (theta + mu_) + digamma(x_ + theta) - digamma(theta))
    results = (nstr(v, 20, min_fixed=1, max_fixed=0) for v in (value, by_log_mu, by_log_theta))
    return f"{x},{mu!r},{log_theta!r}," + ",".join(results)


def points():
    """A grid over the whole domain, then random points, then points where x is near mu (where terms cancel)."""
    thetas = [10.0 ** (k / 2) for k in range(-8, 17)]  # 1e-4 .. 1e8
    means = [10.0**k for k in range(-8, 7)]  # 1e-8 .. 1e6
    counts = [0, 1, 2, 7, 100, 1_000_000]
    for theta in thetas:
        for mu in means:
            for x in counts:
                yield x, mu, theta
    draw = random.Random(20231)
    edges = list(range(0, 20)) + [4095, 4096, 65_535, 65_536, 1_000_000]
    for _ in range(500):
        x = draw.choice(edges) if draw.random() < 0.3 else int(10 ** draw.uniform(0, 6))
        yield x, 10 ** draw.uniform(-8, 6), 10 ** draw.uniform(-4, 8)
    for _ in range(400):
        mu = 10 ** draw.uniform(-1, 6)
        yield max(0, round(mu * (1 + draw.gauss(0, 1) * mu**-0.5))), mu, 10 ** draw.uniform(-4, 8)


print("# python scripts/negative_binomial_table.py > tests/negative_binomial_table.csv")
print("x,mu,log_theta,log_p,d_log_mu,d_log_theta")
for x, mu, theta in points():
    print(row(x, single(mu), single(float(log(mpf(theta))))))
