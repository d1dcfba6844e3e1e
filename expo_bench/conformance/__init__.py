"""What every agent has to be, whatever its algorithm: one implementation for the tests and for `expo-bench check`.

cases: what is particular to an agent; stages: its functions, traced; life: a step of each kind, run; probes: environments of known value;
speed: its update beside EXPO's; rules: verdicts on all of these; check: everything, in order, in terms of the agent's own file.
"""
