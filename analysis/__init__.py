"""Reading the results of sweeps: tables on disk in, statistics, figures and a report out. Knows nothing of JAX, agents or environments.

    from analysis.load import load              # run folders -> Results
    from analysis.report import text_table, write_report

Importing this package loads nothing heavy: pandas comes with `analysis.load`, matplotlib with `analysis.figures`.
"""


class ResultsError(ValueError):
    """Results that cannot be read or reported. The message is one line: what, where, what was expected."""
