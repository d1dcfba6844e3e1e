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
    """offline data: a file (.pickle, .hdf5, .npz; `expo-bench data inspect`), a fetched dataset by name (`expo-bench data fetch`), or
    'none'; default: the task's own demonstrations"""
    rewards: Literal["task", "recorded"] | None = None
    """of the offline data: what the task says of the recorded transitions (default), or rewards, ends and successes as recorded"""
    episodes: int | None = None
    """use only the first episodes of the data; short for --protocol episodes=..."""
    engine: Literal["auto", "mjx", "mujoco"] | None = None
    """physics: MJX inside the program, C MuJoCo through a callback, or what suits the device"""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] | None = None
    """of the operands of the networks' matrix products; sums, parameters, optimisers and physics stay float32. A CPU computes float32 and
    rounds the operands, which is slower: it shows what the curves on a GPU would be"""
    denoiser_precision: Literal["float32", "tensorfloat32", "bfloat16"] | None = None
    """of those of the base policy alone (default: as --precision)"""
    block_rows: int | None = None
    """rows per program and device (default: all rows spread evenly over the devices, or as many as fit into --memory)"""
    memory: str = "0.9"
    """what a program may use of a device's memory: a share, or an amount such as 2GiB. Rows that do not fit run one block after the other; the block
    is chosen once and recorded"""
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
    policies: bool = True
    """keep the best and the last agent of every run, for `expo-bench export-policy`"""
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
class ExportPolicy:
    """Write one trained agent of a run to a file, which `expo-bench eval` evaluates and `expo_bench.load_policy` loads."""

    run: Positional[Path]
    """a run folder"""
    out: Path | None = None
    """the new file (.npz); without it the agents of the run are listed"""
    row: tuple[str, ...] = ()
    """which training run, where there are several: task=push-disc agent=expo seed=3 expo.edit_scale=0.1"""
    which: Literal["best", "last"] = "best"
    """the agent of the evaluation with the highest score (chosen by that score, which therefore flatters it), or of the last evaluation"""


@dataclasses.dataclass(frozen=True)
class Eval:
    """Evaluate an exported agent again, on new episodes, and print its metrics."""

    policy: Positional[Path]
    """a file of `expo-bench export-policy`"""
    task: str | None = None
    """the task (default: the one that it was trained on)"""
    episodes: int = 100
    """whole episodes"""
    seed: int = 1_000_000
    """seed of the episodes; those of the sweep are given to its own seeds"""
    engine: Literal["auto", "mjx", "mujoco"] = "auto"
    """physics engine"""
    agent: Path | None = None
    """the agent's file, where the agent does not come with the suite"""
    json: bool = False
    """print one JSON object instead"""


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
class Watch:
    """Draw one episode of an agent of a run, of a task's demonstrator, or of a policy file, by MuJoCo's offscreen renderer."""

    run: Positional[Path | None] = None
    """a run folder, or a file of `export-policy`"""
    row: tuple[str, ...] = ()
    """which agent of the run, as of `export-policy`: agent=expo seed=3"""
    which: Literal["best", "last"] = "best"
    """as of `export-policy`"""
    task: str | None = None
    """task by name (default: that of the agent)"""
    policy: str = "demonstrator"
    """without a run: 'demonstrator', or the file of a trained policy (.npz, as of `data generate`)"""
    out: Path | None = None
    """a new file for the moving picture, .gif"""
    strip: Path | None = None
    """a new file for six frames side by side, .png"""
    noise: float | None = None
    """as of `data generate`"""
    seed: int = 0
    """seed of everything random"""
    engine: Literal["mujoco", "mjx"] = "mujoco"
    """physics engine"""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Say what a dataset holds: episodes, dimensions, ranges, rewards, ends."""

    file: Positional[str]
    """.pickle (hand_dapg), .hdf5 (D4RL, Minari, robomimic), .npz (expo-bench, OGBench), a Minari folder, or the name of a fetched dataset"""


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Get a dataset by name from Minari's server, or without a name list those that fit the tasks."""

    name: Positional[str | None] = None
    """for example D4RL/door/human-v2; --dataset takes the same name afterwards"""
    unlisted: bool = False
    """any dataset that Minari's server has, not only those of the list"""


@dataclasses.dataclass(frozen=True)
class CheckData:
    """Say whether a dataset is one of a task: replay recorded transitions in its physics, and compare the recorded rewards with its own.

    Data of another task, another observation order or other dynamics end with one line and exit code 2."""

    file: Positional[str]
    """as of `data inspect`"""
    task: str
    """task by name"""
    engine: Literal["mujoco", "mjx"] = "mujoco"
    """physics engine"""


@dataclasses.dataclass(frozen=True)
class Generate:
    """Make the offline data of a task with its demonstrator. The same command goes on where it was killed, and gives the same file."""

    task: Positional[str]
    """task by name"""
    out: Path | None = None
    """the .npz file (default: data/TASK.npz)"""
    episodes: int | None = None
    """episodes (default: the task's standard number)"""
    seed: int = 0
    """seed of everything random"""
    policy: Path | None = None
    """a trained policy (.npz) as demonstrator: the Adroit tasks need one, antmaze has its own and takes another of train-demonstrator"""
    noise: float | None = None
    """noise of the demonstrator's actions (default: the demonstrator's own; a trained policy: none), in units of a trained policy's own"""
    mix: str | None = None
    """shares of qualities, such as expert=0.5,noisy=0.3,failed=0.2: solved by the demonstrator as it is, solved with --noise, and failed
    with --noise"""
    engine: Literal["mujoco", "mjx"] = "mujoco"
    """physics engine"""


@dataclasses.dataclass(frozen=True)
class TrainDemonstrator:
    """Train the policy that a demonstrator needs, with brax's PPO on the task's own physics. Written after every few minutes."""

    task: Positional[Literal["antmaze"]]
    """antmaze: D4RL's ant walks from waypoint to waypoint on an open floor"""
    out: Path
    """the .npz file, with its provenance inside"""
    minutes: float = 45.0
    """wall-clock time of the training"""
    seed: int = 0
    """seed of everything random"""
    engine: Literal["mujoco", "mjx"] = "mujoco"
    """physics engine: mjx where there is an accelerator"""


Data = (
    Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Fetch, tyro.conf.subcommand("fetch")]
    | Annotated[CheckData, tyro.conf.subcommand("check")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[TrainDemonstrator, tyro.conf.subcommand("train-demonstrator")]
)


@dataclasses.dataclass(frozen=True)
class DataCommand:
    """Offline data: look at it, get it, check it, make it, or train what makes it."""

    command: tyro.conf.OmitSubcommandPrefixes[Data]


Command = (
    Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Table, tyro.conf.subcommand("table")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[ExportPolicy, tyro.conf.subcommand("export-policy")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[NewAgent, tyro.conf.subcommand("new-agent")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Watch, tyro.conf.subcommand("watch")]
    | Annotated[DataCommand, tyro.conf.subcommand("data")]
)
