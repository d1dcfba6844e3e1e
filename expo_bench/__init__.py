"""A pure-functional JAX benchmark suite for reinforcement learning with expressive policies."""
