"""What each command of `expo-bench` takes: the fields are its options, their docstrings its help."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Run an experiment: every task x agent x value of --vary x seed, each agent's rows in one jitted program.

    With a file: `expo-bench sweep experiments/quickstart.py`. Without: `expo-bench sweep --tasks point-umaze --agents expo rlpd`.
    Options given beside a file override it.
    """

    file: Positional[Path | None] = None
    """an experiment file that defines EXPERIMENT"""
    tasks: tuple[str, ...] | None = None
    """tasks by name (`expo-bench list`)"""
    agents: tuple[str, ...] | None = None
    """agents by name (`expo-bench list`), or files of your own by path (./my_agent.py; `expo-bench new-agent`); those that the file
    has run as it sets them, in all their variants"""
    seeds: int | None = None
    """seeds per agent and cell (default 5)"""
    first_seed: int | None = None
    """number of the first seed (default 0)"""
    vary: tuple[str, ...] = ()
    """axes, agent.field=value,value: those of traced fields join the seeds in one program, those of static fields make programs of their own.
    With --search also ranges: agent.field=log(1e-5,1e-3) or uniform(0,1)"""
    search: Literal["sobol"] | None = None
    """choose the values of the ranges in --vary on seeds of their own (in a folder OUT-search), then run what was chosen on --seeds others"""
    samples: int | None = None
    """points of the search per agent (default 16; powers of two cover the ranges best)"""
    search_seeds: int | None = None
    """seeds per point (default 3)"""
    set: tuple[str, ...] = ()
    """config fields, field=value for all agents that have the field, or agent.field=value for one (`expo-bench list AGENT` shows them)"""
    protocol: tuple[str, ...] = ()
    """protocol fields, field=value (`expo-bench list protocol` shows them)"""
    online_steps: int | None = None
    """environment steps of the online phase; short for --protocol online_steps=..."""
    offline_steps: int | None = None
    """gradient steps of the offline phase, for the agents that have one"""
    comparison: Literal["released", "equal"] | None = None
    """each agent under its authors' protocol (released), or all under EXPO's (equal)"""
    dataset: str | None = None
    """offline data: a file (.pickle, .hdf5, .npz), or 'none'; default: the task's own demonstrations"""
    episodes: int | None = None
    """use only the first episodes of the data; short for --protocol episodes=..."""
    engine: Literal["auto", "mjx", "mujoco"] | None = None
    """physics: MJX inside the program, C MuJoCo through a callback, or what suits the device"""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] | None = None
    """of matrix products"""
    block_rows: int | None = None
    """rows per program and device (default: all rows spread evenly over the devices)"""
    name: str | None = None
    """name of the experiment"""
    out: Path | None = None
    """a folder for the results (default: the next free one under runs/): a new one, or that of the same sweep, interrupted, which then goes on"""
    resume: Path | None = None
    """go on with the sweep of this run folder, as its manifest describes it; takes no options that say what to run"""
    resume_anyway: bool = False
    """go on also on another device, with other versions, another precision or block: the curves are then not those of an uninterrupted run"""
    checkpoint_minutes: float = 10.0
    """minutes between checkpoints; one is also written on SIGTERM and Ctrl-C"""
    cluster: Literal["local", "slurm"] | None = None
    """run it as jobs: processes of this machine, or an array of Slurm jobs that are saved before their time is over and when they are
    pre-empted, and requeued. `expo-bench status` says how far they are; the same command again, or --resume, submits what is left"""
    jobs: int | None = None
    """with --cluster: jobs at the same time; a program's rows are cut into parts where there are fewer programs (local: one per core)"""
    cpus_per_task: int | None = None
    """with --cluster: cores of a job"""
    gpus_per_node: int | None = None
    """with --cluster slurm: GPUs of a job on each of its nodes"""
    nodes: int = 1
    """with --cluster slurm: nodes of a job, over which its rows are spread"""
    partition: str | None = None
    """with --cluster slurm: the partition"""
    account: str | None = None
    """with --cluster slurm: the account"""
    time: str | None = None
    """with --cluster slurm: time limit of a job, 4:00:00; a sweep that takes longer is requeued, as often as it takes (default 1:00:00)"""
    slurm: tuple[str, ...] = ()
    """with --cluster slurm: further options of sbatch, qos=low mem=32G"""
    coordinator: str | None = None
    """several processes as one program, each started with the same command: HOST:PORT of process 0 (under srun all three are known)"""
    processes: int | None = None
    """how many they are"""
    process: int | None = None
    """which one this is, from 0"""
    report: bool = True
    """write the report at the end"""


@dataclasses.dataclass(frozen=True)
class Status:
    """Say how far a sweep is: its jobs, finished and diverged runs, evaluations, rate and time left. Also while it runs elsewhere."""

    run: Positional[Path]
    """its run folder"""
    json: bool = False
    """print one JSON object instead"""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page from run folders: the verdict, curves with intervals, comparisons, tables, and how to repeat it.

    What cannot be read is left out and named on the page.
    """

    runs: Positional[tuple[Path, ...]]
    """run folders"""
    out: Path | None = None
    """the page, a file that ends in .html, or a folder for report.html (default: the first run folder)"""
    reference: str = "expo"
    """the method that the others are compared with"""
    published: bool = False
    """draw and list the published numbers of the same tasks beside the measured ones"""
    figures: Path | None = None
    """also a folder of every figure as PDF and PNG with its numbers as CSV, and the table as Markdown, LaTeX and CSV"""
    watch: bool = False
    """write the page again while a sweep runs, until it is finished or Ctrl-C is pressed"""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the results of run folders for other tools. Nothing is sent anywhere."""

    runs: Positional[tuple[Path, ...]]
    """run folders"""
    out: Path
    """a new folder; for csv also a new file that ends in .csv"""
    format: Literal["csv", "wandb", "tensorboard"] = "csv"
    """one tidy table, offline runs for `wandb sync`, or TensorBoard event files"""


@dataclasses.dataclass(frozen=True)
class Import:
    """Make a run folder of learning curves from elsewhere, marked as imported in every table and plot.

    The file has columns step, score and seed, or step and one column per seed (0, seed_0), or was written by `expo-bench export`. Scores
    are the task's own metric (`expo-bench list TASK`), as shares."""

    file: Positional[Path]
    """the CSV file"""
    out: Path
    """a new run folder"""
    source: str
    """where the numbers come from, as it stands beside the agent's name: cleanrl"""
    task: str | None = None
    """the task's name (unless the file has a column task)"""
    agent: str | None = None
    """the agent's name (unless the file has a column agent)"""
    columns: str = ""
    """what the columns are called: step=NAME,score=NAME,seed=NAME; seed=3 for the file of one seed; score="* - eval" for a column per seed"""


@dataclasses.dataclass(frozen=True)
class Table:
    """Print one Markdown table from run folders: a line per method, a column per task, experiment and metric, means with 95 % intervals."""

    runs: Positional[tuple[Path, ...]]
    """run folders"""
    metrics: tuple[str, ...] = ("success",)
    """columns of the results: score, success, episode_return, q_bias, max_gain, max_bias, ... at the last evaluation"""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Say whether one method is better than another, worse, or not separable: per task and overall, by final score and by sample efficiency."""

    runs: Positional[tuple[Path, ...]]
    """run folders"""
    candidate: str
    """the method in question: an agent, or a label as the report shows it, such as "expo (random selection)\""""
    reference: str = "expo"
    """the method it is compared with"""
    threshold: float = 0.8
    """the score that "steps to" is about"""
    json: bool = False
    """print one JSON object instead"""


@dataclasses.dataclass(frozen=True)
class List:
    """Show tasks and agents with one line each, or one of them with all its fields."""

    name: Positional[str | None] = None
    """a task, an agent or its file, or 'protocol'"""


@dataclasses.dataclass(frozen=True)
class NewAgent:
    """Write a file with an algorithm that already learns, for you to change; it then runs beside the others by its path."""

    file: Positional[Path]
    """the new file; its name becomes the agent's: my_agent.py"""


@dataclasses.dataclass(frozen=True)
class Check:
    """Test an algorithm against what every one has to be, and say where in its file to look: types, purity, rows, probe environments, time.

    Exit code 1 where a test fails."""

    agent: Positional[str]
    """a file (./my_agent.py), or an agent by name"""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Say what a dataset holds: episodes, dimensions, ranges, rewards, ends."""

    file: Positional[Path]
    """.pickle (hand_dapg), .hdf5 (D4RL) or .npz"""


@dataclasses.dataclass(frozen=True)
class Generate:
    """Make the offline data of a task with its demonstrator."""

    task: Positional[str]
    """task by name"""
    out: Path | None = None
    """the .npz file (default: data/TASK.npz)"""
    episodes: int | None = None
    """episodes (default: the task's standard number)"""
    seed: int = 0
    """seed of everything random"""
    policy: Path | None = None
    """door: a trained policy (.npz) as demonstrator"""
    noise: float | None = None
    """noise of the demonstrator's actions (default: the demonstrator's own)"""
    engine: Literal["mujoco", "mjx"] = "mujoco"
    """physics engine"""


Data = Annotated[Inspect, tyro.conf.subcommand("inspect")] | Annotated[Generate, tyro.conf.subcommand("generate")]


@dataclasses.dataclass(frozen=True)
class DataCommand:
    """Offline data: look at a file, or make one."""

    command: tyro.conf.OmitSubcommandPrefixes[Data]


Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Table, tyro.conf.subcommand("table")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[NewAgent, tyro.conf.subcommand("new-agent")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[DataCommand, tyro.conf.subcommand("data")]
)
