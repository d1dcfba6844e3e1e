"""Is it the selection? EXPO with other rules for which candidate acts and which one the TD backup takes, at the quickstart's sizes.

"random selection" is the control that would refute the paper's mechanism: the same base policy, edits, critics and data, and a coin instead of
the maximum. "random acting" and "random backup" take the two uses apart; "plain backup" is the paper's Fig. 6 (one base sample in the TD
target); "online critic", "double" and "softmax" ask whether the maximum's optimism matters; "no edits" and "bc" are what is left below.
"""

from experiments import sizes
from expo_bench import Experiment, Method


def rule(variant: str, act: str = "max", backup: str = "max", **config: object) -> Method:
    return Method("expo", variant, config={"select_act": act, "select_backup": backup, **config})


METHODS = [
    "expo",
    rule("random selection", "random", "random"),
    rule("random acting", act="random"),
    rule("random backup", backup="random"),
    rule("plain backup", backup="base"),
    rule("online critic", "online", "online"),
    rule("double", backup="double"),
    rule("softmax", "softmax", "softmax", temperature=0.05),
    rule("no edits", n_edits=0),
    "bc",
]
EXPERIMENT = Experiment(name="selection", tasks=["push-disc"], methods=METHODS, seeds=10, config=sizes.CONFIG, protocol=sizes.PROTOCOL)
