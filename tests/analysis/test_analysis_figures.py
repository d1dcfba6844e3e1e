"""The figures: what is drawn, under which names, and the same every time."""

import re

import numpy as np
import pandas as pd
from synthetic_runs import curve, write_run

from analysis import summary
from analysis.figures import comparing, style
from analysis.figures.curves import learning_curves
from analysis.figures.drawing import paper_figure
from analysis.findings import find
from analysis.gallery import gallery
from analysis.load import load
from analysis.report import write_report


def test_the_files_of_a_report(run):
    assert write_report([run], figures=run / "paper") == run / "report.html"
    made = {str(item.relative_to(run)) for item in run.rglob("*") if item.is_file()} - {"manifest.json"}
    stems = {f"{kind}-{task}" for kind in ("curve", "paired") for task in ("door", "maze")} | {"profile", "improvement"}
    stems |= {f"variants-{task}-expo" for task in ("door", "maze")}
    figures = {f"paper/{stem}.{ending}" for stem in stems for ending in ("png", "pdf", "csv")}
    others = {"report.html", *(f"paper/{name}" for name in ("captions.txt", "table.md", "table.tex", "table.csv"))}
    assert made - {f"results/{i:04d}.parquet" for i in range(3)} == figures | others
    begin = {"png": b"\x89PNG", "pdf": b"%PDF"}
    assert all((run / name).read_bytes()[:4] == begin[name[-3:]] for name in figures if name[-3:] in begin)
    drawn = pd.read_csv(run / "paper/curve-maze.csv").set_index(["method", "phase", "step"])
    np.testing.assert_allclose(drawn.loc[("expo", "online", 400), ["seeds", "mean"]], [3, 0.95])
    paired = pd.read_csv(run / "paper/paired-maze.csv").set_index("method")
    np.testing.assert_allclose(paired.loc["idql", ["estimate", "n"]], [0.3, 3])
    assert len({pd.read_csv(run / f"paper/{stem}.csv").size > 0 for stem in stems}) == 1
    assert (run / "paper/table.tex").read_text().count(r" \\") == 9  # a header and two tasks of four methods


def test_the_same_results_give_the_same_report(run, tmp_path):
    pages = [write_report(run, out=tmp_path / name, figures=tmp_path / name / "paper") for name in "ab"]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert (tmp_path / "a/paper/curve-maze.png").read_bytes() == (tmp_path / "b/paper/curve-maze.png").read_bytes()


def test_tasks_whose_names_fall_together_get_figures_each(tmp_path):
    rows = [row for task in ("../a", "a", "A") for row in curve([0.0, 0.5], task=task)]
    run = write_run(tmp_path / "run", rows)
    drawings = gallery(find(load(run), "expo"))["curves"]
    assert len({drawing.stem.lower() for drawing in drawings}) == 3 and all(re.fullmatch(r"[\w.-]+", drawing.stem) for drawing in drawings)


def test_every_method_keeps_its_agents_colour(run):
    methods = load(run).methods
    styles = style.colours(methods)
    assert styles["expo"][0] == style.COLOURS["expo"].lower() and styles["idql"][0] == style.COLOURS["idql"].lower()
    assert style.colours([method for method in methods if method.agent != "bc"])["expo"] == styles["expo"]
    assert len(set(styles.values())) == len(methods)


def test_the_variants_of_an_ablation_are_told_apart_by_colour(tmp_path):
    rows = [row for i in range(9) for row in curve([0.0, 0.5], variant=f"rule {i}" if i else "")] + curve([0.0, 0.3], agent="bc")
    styles = style.colours(load(write_run(tmp_path / "run", rows)).methods)
    assert styles["expo"][0] == style.COLOURS["expo"].lower() and styles["bc"][0] == style.COLOURS["bc"].lower()
    assert len({colour.lower() for colour, _ in styles.values()}) == 10


def test_many_cells_and_long_names_fit(tmp_path, recwarn):
    rows = [row for i in range(14) for row in curve([0.0, 0.5, 0.6], variant="a variant with a long name", **{"expo.edit_scale": 0.01 * i})]
    results = load(write_run(tmp_path / "run", rows))
    summaries = summary.summarise(results)
    paper_figure(learning_curves(results, summaries))
    paper_figure(comparing.paired_plot(results, summary.paired(summaries, results.methods[0])))
    assert not [w for w in recwarn if "layout" in str(w.message)]


def test_seeds_of_unequal_grids_are_drawn(tmp_path):
    rows = curve([0.0, 0.5, 1.0], every=200) + curve([0.0, 0.5, 0.7, 0.8], every=150, seed=1)
    results = load(write_run(tmp_path / "run", rows))
    axes = paper_figure(learning_curves(results, summary.summarise(results))).axes[0]
    full = axes.lines[1].get_ydata()
    np.testing.assert_array_equal(np.isfinite(full), [True, False, False, False, False, False])  # only step 0 has both seeds
    assert np.isfinite(axes.lines[0].get_ydata()).all()


def test_the_curve_is_the_mean_and_the_band_is_clipped_only_in_the_drawing(tmp_path):
    rows = [row for seed, top in enumerate((1.0, 1.0, 0.9)) for row in curve([0.0, top], seed=seed)]
    results = load(write_run(tmp_path / "run", rows))
    axes = paper_figure(learning_curves(results, summary.summarise(results))).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.0, 2.9 / 3])
    assert axes.collections[0].get_datalim(axes.transData).y1 == 1.0
    assert axes.get_ylim() == (-0.03, 1.03)


def test_the_switch_is_marked_only_after_an_offline_phase(run, tmp_path):
    online = load(write_run(tmp_path / "online", curve([0.0, 0.5])))
    assert len(paper_figure(learning_curves(online, summary.summarise(online))).axes[0].lines) == 1
    both = load(run)
    chosen = [s for s in summary.summarise(both) if s.task == "maze"]
    axes = paper_figure(learning_curves(both, chosen)).axes[0]
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.lines)
    assert axes.get_xlim()[0] < -99  # the offline phase has a quarter of the online width
