"""Reading the results of sweeps: tables on disk in, statistics, figures and a report out. Knows nothing of JAX, agents or environments.

    from analysis.load import load              # run folders -> Results
    from analysis.report import text_table, write_report

What the numbers are made with, every function from arrays or {task: values over seeds}:

    statistics   mean, median, IQM, optimality gap of the seeds of one agent on one task; the paired difference of two
    intervals    intervals of those, several kinds, the default by measured coverage (docs/coverage.md)
    comparisons  two agents: difference, ratio, probability of improvement; Holm's correction
    aggregate    over tasks: the same, and performance profiles
    efficiency   learning curves: area, regret, final score, steps to a threshold, drop and recovery at the switch
    survival     steps to a threshold: restricted mean, median, ratio of two agents with "at least"
    axes         seconds and FLOP instead of steps, aligned grids, smoothing
    seeds        width of an interval against the number of seeds, seeds needed to tell two agents apart

Importing this package loads nothing heavy: pandas comes with `analysis.load`, matplotlib with `analysis.figures`.
"""


class ResultsError(ValueError):
    """Results that cannot be read or reported. The message is one line: what, where, what was expected."""
