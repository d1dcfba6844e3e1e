"""The golden numbers of the official implementations (tests/golden), their flax parameters mapped onto this project's pytrees.

A mapping is a list of (pattern of an official path, our path); the tree that comes out has to have exactly the structure, shapes and dtypes
of our own init, so that a forgotten, an additional or a misplaced leaf fails before any number is compared.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

FOLDER = Path(__file__).parent.parent / "golden"

DENOISER = [
    (r"FourierFeatures_0/kernel", "frequencies"),
    (r"DiffusionMLP_0/Dense_(\d)/(.*)", r"cond_\1/\2"),
    (r"DiffusionMLPResNet_0/MLPResNetBlock_(\d)/LayerNorm_0/(.*)", r"block_\1/norm/\2"),
    (r"DiffusionMLPResNet_0/MLPResNetBlock_(\d)/Dense_0/(.*)", r"block_\1/wide/\2"),
    (r"DiffusionMLPResNet_0/MLPResNetBlock_(\d)/Dense_1/(.*)", r"block_\1/narrow/\2"),
    (r"DiffusionMLPResNet_0/Dense_0/(.*)", r"in_\1"),
    (r"DiffusionMLPResNet_0/Dense_1/(.*)", r"out/\1"),
]
CRITIC = [
    (r"VmapStateActionValue_0/MLP_0/Dense_(\d)/(.*)", r"dense_\1/\2"),
    (r"VmapStateActionValue_0/MLP_0/LayerNorm_(\d)/(.*)", r"norm_\1/\2"),
    (r"VmapStateActionValue_0/Dense_0/(.*)", r"out/\1"),
]
GAUSSIAN = [
    (r"MLP_0/Dense_(\d)/(.*)", r"trunk/dense_\1/\2"),
    (r"OutputDenseMean/(.*)", r"mean/\1"),
    (r"OutputDenseLogStd/(.*)", r"log_std/\1"),
]
VALUE = [  # IDQL's value net: its one LayerNorm stands on the input
    (r"MLP_0/LayerNorm_0/(.*)", r"norm_input/\1"),
    (r"MLP_0/Dense_(\d)/(.*)", r"dense_\1/\2"),
    (r"OutputVDense/(.*)", r"out/\1"),
]
FQL = [  # every net of FQL has four hidden layers
    (r"(?:mlp|value_net)/Dense_4/(.*)", r"out/\1"),
    (r"(?:mlp|value_net)/Dense_(\d)/(.*)", r"dense_\1/\2"),
    (r"value_net/LayerNorm_(\d)/(.*)", r"norm_\1/\2"),
]
CAL_QL = [  # each of its critics is a tree of its own
    (r"FullyConnectedNetwork_0/Dense_2/(.*)", r"out/\1"),
    (r"FullyConnectedNetwork_0/Dense_(\d)/(.*)", r"dense_\1/\2"),
]
CAL_QL_POLICY = [  # after `with_heads`
    (r"base_network/Dense_(\d)/(.*)", r"trunk/dense_\1/\2"),
    (r"((?:mean|log_std)/.*)", r"\1"),
]


class Golden:
    """One file: arrays by name, parameter trees by prefix."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def tree(self, prefix: str, rules: list[tuple[str, str]], like: Any) -> Any:
        """The parameters below `prefix` as a pytree that matches `like`, our own init."""
        tree: dict = {}
        for name, value in self.arrays.items():
            if not name.startswith(prefix + "/"):
                continue
            *folders, leaf = _our_path(name[len(prefix) + 1 :], rules).split("/")
            node = tree
            for folder in folders:
                node = node.setdefault(folder, {})
            assert leaf not in node, f"two official leaves become {'/'.join([*folders, leaf])}"
            node[leaf] = jnp.asarray(value)
        chex.assert_trees_all_equal_structs(tree, like)
        chex.assert_trees_all_equal_shapes_and_dtypes(tree, like)
        return tree


def with_heads(file: Golden, prefix: str) -> Golden:
    """Cal-QL's policy with two heads instead of one of twice the width, and its learnt scale and offset of log_std (ours: 1 and -1) inside."""
    arrays = {name: value for name, value in file.arrays.items() if re.match(f"{prefix}/base_network/Dense_[01]/", name)}
    scale, offset = (file[f"{prefix}/log_std_{name}_module/value"] for name in ("multiplier", "offset"))
    for leaf, shift in (("kernel", 0), ("bias", offset + 1)):
        mean, log_std = np.split(file[f"{prefix}/base_network/Dense_2/{leaf}"], 2, axis=-1)
        arrays |= {f"{prefix}/mean/{leaf}": mean, f"{prefix}/log_std/{leaf}": scale * log_std + shift}
    heads = copy.copy(file)
    heads.arrays = arrays
    return heads


def _our_path(official: str, rules: list[tuple[str, str]]) -> str:
    for pattern, ours in rules:
        if match := re.fullmatch(pattern, official):
            return match.expand(ours)
    raise KeyError(f"no rule for the official leaf {official}")


def error(got: Any, want: Any) -> float:
    """The largest difference of two pytrees' leaves, each relative to max(1, largest number of its leaf)."""
    chex.assert_trees_all_equal_structs(got, want)

    def of_leaf(got: jax.Array, want: np.ndarray) -> float:
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
        return float(np.max(np.abs(got - want)) / max(1.0, np.max(np.abs(want))))

    return max(jax.tree.leaves(jax.tree.map(of_leaf, got, want)))


def close(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` relative to max(1, scale)."""
    largest = error(got, want)
    assert largest <= tolerance, f"off by {largest:.2e}"  # a NaN fails too


def first_gradient(opt: Any, steps: int = 1) -> Any:
    """The gradient that an Adam or AdamW got in its first step, or in each of its first equal `steps`: its first moment is (1 - 0.9^n) g."""
    is_adam = lambda node: hasattr(node, "mu")
    (adam,) = [node for node in jax.tree.leaves(opt, is_leaf=is_adam) if is_adam(node)]
    return jax.tree.map(lambda m: np.asarray(m) / np.float32(1 - 0.9**steps), adam.mu)
