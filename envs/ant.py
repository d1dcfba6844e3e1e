"""The ant: a sphere on four two-jointed legs, in the two builds that carry the name AntMaze.

Both are the quadruped of Schulman et al. (2015, arXiv 1506.02438) as MuJoCo models: torso of radius 0.25 m, capsules of radius 0.08 m, density
5, armature and damping 1, RK4, five substeps. They differ in what a dataset is made of:

    build        timestep  control  torque  contacts                        source
    D4RL         0.02 s    10 Hz    30 N m  softer (solimp 0.8 0.8 0.01)    D4RL d4rl/locomotion/assets/ant.xml (OGBench's is of its lineage)
    GYMNASIUM    0.01 s    20 Hz    150 N m MuJoCo's default (0.9 0.95 ..)  gymnasium/envs/mujoco/assets/ant.xml, loaded by gymnasium-robotics

Joint angles are (hip, ankle) of the legs 1 to 4, counter-clockwise from the front left; the actuators begin with leg 4, as shipped.
The numbers are the sources'; the model is written here. `tests/envs/test_env_ant.py` compares it with gymnasium's, field by field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import mujoco

SUBSTEPS = 5
HEIGHT = 0.75  #                metres, of the torso in the reference pose, from which it falls to the floor
LEGS = ((1, 1, 1), (-1, 1, -1), (-1, -1, -1), (1, -1, 1))  # (side in x, side in y, sign of the ankle's bend) of the legs 1 to 4
ACTUATOR_LEGS = (3, 0, 1, 2)  # the leg, from 0, that each pair of actions (hip, ankle) drives
JOINTS = tuple(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle"))

# MJX holds a slot for every contact that could ever be, and solves for all of them. There, only the parts that a walking ant can touch
# things with collide at all (torso and ankles), each kind of geometry pair is tried for the nearest pairs only, and the deepest contacts count.
MJX_PAIRS = 8  #     ankle and wall pairs that are looked at; all walls are equal boxes, so that the nearest pairs are the right ones
MJX_CONTACTS = 12  # contacts of four rows each
MJX_ITERATIONS, MJX_LS_ITERATIONS = 6, 12
MARGIN = 0.01  # metres, of every geom: a contact pushes once two are closer than both margins together


@dataclasses.dataclass(frozen=True)
class Build:
    """What differs between the two ants."""

    timestep: float  #  seconds
    torque: float  #    N m, at an action of 1
    contact: str  #     solver parameters of every geom


D4RL = Build(timestep=0.02, torque=30.0, contact='solref="0.02 1" solimp="0.8 0.8 0.01"')
GYMNASIUM = Build(timestep=0.01, torque=150.0, contact="")


def _leg(number: int, few_contacts: bool) -> str:
    x, y, bend = LEGS[number - 1]
    low, high = (30, 70) if bend > 0 else (-70, -30)
    still = 'contype="0"' if few_contacts else ""
    capsule = lambda length, more="": f'<geom type="capsule" size="0.08" fromto="0 0 0 {length * x} {length * y} 0" {more}/>'
    return f"""
      <body>
        {capsule(0.2, still)}
        <body pos="{0.2 * x} {0.2 * y} 0">
          <joint name="hip_{number}" axis="0 0 1" range="-30 30"/>
          {capsule(0.2, still)}
          <body pos="{0.2 * x} {0.2 * y} 0">
            <joint name="ankle_{number}" axis="{-x * y} 1 0" range="{low} {high}"/>
            {capsule(0.4)}
          </body>
        </body>
      </body>"""


def ant_model(build: Build, walls: Iterable[tuple[float, float]] = (), *, cell: float = 4.0, few_contacts: bool = False) -> mujoco.MjModel:
    """The ant on an endless floor, with a box `cell` metres wide and `cell` / 2 high around each (x, y) of `walls`.

    `few_contacts` is the form for MJX. What it changes: the upper legs and the bars at the torso touch nothing (they do only when the ant has
    fallen over), of ankles and walls no more than the `MJX_PAIRS` nearest pairs and in all the `MJX_CONTACTS` deepest contacts count, and the
    solver stops after `MJX_ITERATIONS`. Walls stand further out by the margin that they and the ant have together, which is then 0: MJX finds a
    contact with a box only once the two overlap, and would then push as if they overlapped by the margin as well. The same force from the same
    distance on, at a point that is 1 cm off. An upright ant on the floor notices nothing: in C MuJoCo, which knows no limits on pairs and contacts,
    the other changes leave 50 random actions' trajectory as it was to the last bit until it touches a wall (benchmarks.parity.antmaze).
    """
    legs = "".join(_leg(number, few_contacts) for number in (1, 2, 3, 4))
    # (margin of the ant, of the floor, of the walls); how far walls stand out
    margins, out = ((0.0, 2 * MARGIN, 0.0), 2 * MARGIN) if few_contacts else ((MARGIN,) * 3, 0.0)
    half, high = cell / 2 + out, cell / 4
    box = f'<geom type="box" size="{half} {half} {high + out}" conaffinity="1" margin="{margins[2]}"'
    boxes = "".join(f'{box} pos="{x} {y} {high}"/>' for x, y in walls)
    motors = "".join(
        f'<motor joint="{part}_{leg + 1}" gear="{build.torque}" ctrlrange="-1 1" ctrllimited="true"/>'
        for leg in ACTUATOR_LEGS
        for part in ("hip", "ankle")
    )
    solver = f'iterations="{MJX_ITERATIONS}" ls_iterations="{MJX_LS_ITERATIONS}"' if few_contacts else ""
    limits = f'<numeric name="max_geom_pairs" data="{MJX_PAIRS}"/><numeric name="max_contact_points" data="{MJX_CONTACTS}"/>'
    return mujoco.MjModel.from_xml_string(f"""
<mujoco model="ant">
  <option timestep="{build.timestep}" integrator="RK4" {solver}/>
  <custom>{limits if few_contacts else ""}</custom>
  <default>
    <joint limited="true" armature="1" damping="1"/>
    <geom condim="3" conaffinity="0" margin="{margins[0]}" friction="1 0.5 0.5" density="5" {build.contact}/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="40 40 40" conaffinity="1" margin="{margins[1]}"/>
    {boxes}
    <body name="torso" pos="0 0 {HEIGHT}">
      <geom type="sphere" size="0.25"/>
      <joint name="root" type="free" limited="false" margin="0.01" armature="0" damping="0"/>
      {legs}
    </body>
  </worldbody>
  <actuator>{motors}</actuator>
</mujoco>""")
