"""Environments of other packages as tasks by name: `brax:ant`, `playground:FingerTurnHard`, `gym:AdroitHandDoorSparse-v1`.

Every module here has `info(name) -> TaskInfo` and `make(info) -> Environment`; both raise TaskError for a missing package or an
unknown name.
"""
