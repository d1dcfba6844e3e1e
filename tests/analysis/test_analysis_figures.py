"""The figures: what is drawn, under which names, and the same every time."""

import itertools
import re

import numpy as np
import pandas as pd
from synthetic_runs import curve, write_run

from analysis import summary, tables
from analysis.figures import ablation, comparing, style
from analysis.figures.curves import learning_curves
from analysis.figures.drawing import panel_figure, paper_figure
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


def cells(tmp_path, **axes):
    """Final scores 0.1, 0.2, ... over the product of the axes, two seeds."""
    rows = []
    for i, values in enumerate(itertools.product(*axes.values())):
        for seed in (0, 1):
            names = {f"expo.{name}": value for name, value in zip(axes, values, strict=True)}
            rows += [row | names for row in curve([0.0, 0.1 * (i + 1) + 0.02 * seed], seed=seed)]
    results = load(write_run(tmp_path / "run", rows))
    return results, summary.summarise(results)


def test_many_methods_become_small_multiples_of_one_another(tmp_path):
    rows = [row for i in range(8) for row in curve([0.0, 0.1 * i], agent=f"agent{i}") + curve([0.0, 0.1 * i], agent=f"agent{i}", seed=1)]
    results = load(write_run(tmp_path / "run", rows))
    drawn = learning_curves(results, summary.summarise(results), reference="agent3")
    assert len(drawn.panels) == 8 and drawn.small and "the others are grey, agent3 as a thin line" in drawn.caption
    axes = panel_figure(drawn, drawn.panels[5]).axes[0]
    assert axes.get_title(loc="left") == "agent5" and len(axes.lines) == 8
    assert [line.get_color() for line in axes.lines].count(style.CONTEXT) == 6
    assert len([c for c in axes.collections if c.get_gid() == style.SEEDS]) == 1  # of its own method only
    paper = paper_figure(drawn)
    assert len(paper.axes) == 8 and {axes.get_ylim() for axes in paper.axes} == {(-0.03, 1.03)}
    assert not paper.findobj(lambda artist: artist.get_gid() == style.SEEDS)


def test_single_seeds_are_in_the_page_but_hidden(run):
    text = write_report(run).read_text()
    assert text.count('<g class="seeds"') > 6 and 'id="seeds"' not in text
    assert ".toggle:not(:checked) ~ * .seeds { display: none; }" in text and 'class="toggle" id="seeds-curves"' in text


def test_names_at_the_ends_of_curves_do_not_overlap(run):
    results = load(run)
    drawn = learning_curves(results, [s for s in summary.summarise(results) if s.task == "maze"])
    axes = panel_figure(drawn, drawn.panels[0]).axes[0]
    heights = sorted(text.xy[1] for text in axes.texts if text.get_text() in results.labels)
    assert len(heights) == 3 + 1 or not heights  # all names, or a legend where one is too long
    crowded = {f"m{i}": 0.99 for i in range(5)}
    style.direct_labels(axes, crowded, {label: ("#000000", "-") for label in crowded})
    heights = sorted(text.xy[1] for text in axes.texts if text.get_text() in crowded)
    assert np.diff(heights).min() > 0.05 and heights[-1] <= 1.0


def test_one_axis_is_drawn_as_curves_and_as_sensitivity(tmp_path):
    results, summaries = cells(tmp_path, edit_scale=(0.05, 0.1, 1.0))
    (group,) = ablation.groups(summaries)
    assert group.axes == ("expo.edit_scale",) and [values for values, _ in group.cells] == [(0.05,), (0.1,), (1.0,)]
    drawn = ablation.sensitivity(group, 0, "s")
    axes = paper_figure(drawn).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.11, 0.21, 0.31])
    assert axes.get_xscale() == "log" and list(axes.lines[0].get_xdata()) == [0.05, 0.1, 1.0]
    np.testing.assert_allclose(drawn.data["mean"], [0.11, 0.21, 0.31])
    assert len(ablation.value_curves(results, group, "score", "v").panels) == 1


def test_two_axes_are_a_heat_map(tmp_path):
    results, summaries = cells(tmp_path, samples=(2, 8), selection=("max", "random"))
    (group,) = ablation.groups(summaries)
    axes = paper_figure(ablation.heat_map(group, "m")).axes[0]
    np.testing.assert_allclose(axes.collections[0].get_array().reshape(2, 2), [[0.11, 0.31], [0.21, 0.41]])
    assert [text.get_text().split("\n")[0] for text in axes.texts[:4]] == ["0.11", "0.21", "0.31", "0.41"]
    stems = [drawing.stem for drawing in gallery(find(results, "expo"))["settings"]]
    assert stems == ["values-maze-expo", "map-maze-expo", "sensitivity-maze-expo-expo-samples", "sensitivity-maze-expo-expo-selection"]


def test_the_critics_estimates_are_drawn_where_they_were_logged(tmp_path):
    rows = [row | {"q_bias": 5.0 * (seed + 1)} for seed in (0, 1) for row in curve([0.1, 0.2, 0.3], seed=seed)]
    rows += [row for seed in (0, 1) for row in curve([0.1, 0.2, 0.3], agent="bc", seed=seed)]
    (drawn,) = gallery(find(load(write_run(tmp_path / "run", rows)), "expo"))["critics"]
    assert set(drawn.data["method"]) == {"expo"} and set(drawn.data["mean"]) == {7.5} and "q_bias" in drawn.caption
    assert paper_figure(drawn).axes[0].get_ylim()[1] > 7.5


def test_the_latex_table_is_escaped():
    assert tables.latex_table(["a_b", "c"], [["50 %", ">=3"]]).splitlines()[2:5] == [r"a\_b & c \\", r"\midrule", r"50 \% & $\geq$3 \\"]
