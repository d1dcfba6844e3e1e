"""The sections of the page, from the findings to HTML. Figures come ready made."""

from collections.abc import Sequence

import numpy as np

from analysis import page, summary, tables
from analysis.aggregate import over_tasks
from analysis.findings import Findings
from analysis.published import beside
from analysis.seeds import MOST
from analysis.statistics import shortfall
from analysis.summary import Paired
from analysis.tables import show_interval
from analysis.verdict import overall_sentence, verdict


def headline(findings: Findings) -> str:
    """Counts, then device, date and commit of every run folder."""
    results = findings.results
    frame = results.frame
    counts = [(len(results.tasks), "task"), (len(results.methods), "method"), (frame["seed"].nunique(), "seed"), (len(frame), "evaluation")]
    parts = [", ".join(f"{count:,} {noun}{'s' if count != 1 else ''}" for count, noun in counts)]
    for manifest in results.manifests:
        facts = [manifest.get("device"), str(manifest.get("finished") or manifest.get("created") or "")[:10]]
        facts.append(f"commit {str(manifest.get('git_commit'))[:10]}" if manifest.get("git_commit") else "")
        parts.append(", ".join(str(fact) for fact in facts if fact))
    return " \N{MIDDLE DOT} ".join(part for part in dict.fromkeys(parts) if part)


def verdict_section(findings: Findings) -> str:
    """The overall sentence, then one card per task; what is unfinished stands above both."""
    left_out = [note for note in findings.results.notes if note.startswith("Left out")]
    notices = [page.notice("Unfinished", part.text) for part in findings.progress] + [page.notice("Incomplete", note) for note in left_out]
    cards = [page.card("", [overall_sentence(findings)])]
    cards += [page.card(task, lines) for task, lines in verdict(findings.summaries, findings.reference, findings.threshold)]
    how = (
        "Final score: the last evaluation. Brackets: 95 % intervals over seeds (Student's t; of ratios, for the logarithm); differences are "
        "taken seed by seed, on the same evaluation episodes. Separable: that interval leaves out 0. Intervals are not widened for the number "
        "of comparisons made; the first sentence and the p below are corrected for it."
    )
    return page.section("Verdict", *notices, *cards, page.paragraph(how, "note"))


def curves_section(figures: Sequence[str]) -> str:
    """The learning curves, and the switch that shows single seeds."""
    return page.section("Learning curves", page.seeds_switch("curves"), *figures)


def results_section(findings: Findings) -> str:
    """The table of every method on every task."""
    summaries, threshold = findings.summaries, findings.threshold
    header, rows = tables.table_rows(summaries, threshold, findings.marks)
    windows = {s.task: s.window for s in summaries if np.isfinite(s.window).all()}
    spans = "; ".join(f"{task}: {low:,.0f} to {high:,.0f}" for task, (low, high) in windows.items())
    how = (
        "IQM: mean of the middle half of the seeds. AUC: mean score over the online steps that every method of the task covers "
        f"({spans or 'none'}), by the trapezoid rule. Steps to {100 * threshold:g} %: environment steps until two consecutive evaluations "
        "are at or above it, mean over seeds; a seed gets there somewhere between two evaluations, and the interval allows for all of that "
        "gap; >= where seeds never got there (how many did), their steps counting up to the end. Switch: the change from offline to online, "
        "first online evaluation minus last offline one. Seeds as 4/5: one of five has no finite final score. No interval is clipped: one "
        "may pass 0 or 1."
    )
    return page.section("Results", page.table(header, rows, numbers=("seeds", "IQM"), group=True), page.paragraph(how, "note"))


def across_section(findings: Findings, profiles: Sequence[str]) -> str:
    """Aggregates over the tasks that all methods share, and the performance profiles."""
    tasks, notes = findings.common
    parts = list(profiles)
    if len(tasks) > 1:
        rows = []
        for label, scores in findings.scores.items():
            gaps = {task: shortfall(scores[task]) for task in tasks}
            found = [over_tasks(scores, quantity, tasks=tasks) for quantity in ("mean", "median", "iqm")] + [over_tasks(gaps, "mean")]
            rows.append([label, *map(show_interval, found), str(int(found[0].n))])
        header = ["method", "mean [95 %]", "median of tasks [95 %]", "IQM [95 %]", "optimality gap [95 %]", "least seeds on a task"]
        how = (
            f"Final scores on {', '.join(tasks)}, every task counting the same; seeds are resampled within tasks, so the intervals speak of new "
            "seeds on these tasks, not of new tasks. Mean and gap: Student's t with Satterthwaite's degrees of freedom; median and IQM: "
            "stratified bootstrap with small-sample corrections. Optimality gap: what is lacking of 1."
        )
        parts = [page.table(header, rows, numbers=header[-1:]), page.paragraph(how, "note"), *parts]
    parts += [page.bullets(notes)] if notes and len(findings.results.tasks) > 1 else []
    return page.section("Across tasks" if len(tasks) > 1 else "Performance profiles", *parts) if parts else ""


def improvement_section(findings: Findings, figures: Sequence[str]) -> str:
    """Probability of improvement of the reference over every other method."""
    return page.section(f"Probability of improvement of {findings.reference.label}", *figures) if figures else ""


def paired_section(findings: Findings, figures: Sequence[str]) -> str:
    """Differences seed by seed, with p values that allow for the number of comparisons."""
    anchor, final, area = findings.reference.label, findings.finals, findings.areas
    title = f"Paired differences: {anchor} minus the others"
    if not final:
        return page.section(title, page.paragraph("No task has another method to compare with."))
    header = ["task", "method", "shared seeds", "final score [95 %]", "", "p (Holm)", "AUC [95 %]", "", "p (Holm)"]
    columns = zip(final, summary.adjusted_p(final), area, summary.adjusted_p(area), strict=True)
    rows = [
        [f.task, f.other.label, str(f.interval.n), _gap(f), _separable(f), _p(p), _gap(a), _separable(a), _p(q)] for f, p, a, q in columns
    ]
    how = (
        f"Above 0: {anchor} is better. A seed gives every method the same evaluation episodes. p: Student's t on the differences, "
        f"adjusted by Holm's method for the {len(final)} comparisons of its column."
    )
    return page.section(
        title, page.grid(figures), page.table(header, rows, numbers=("shared seeds",), group=True), page.paragraph(how, "note")
    )


def efficiency_section(findings: Findings) -> str:
    """Steps to the threshold, and how many times as many the others take."""
    anchor, percent = findings.reference.label, f"{100 * findings.threshold:g} %"
    header = [
        "task",
        "method",
        "seeds there",
        f"steps to {percent} [95 %]",
        "half of the seeds by",
        f"times the steps of {anchor} [95 %]",
        "",
    ]
    rows = []
    for s in findings.summaries:
        own = findings.by_name.get((s.task, anchor))
        ratio = summary.time_ratio(s, own) if own is not None and s is not own else None
        text, judged = ("reference" if s is own else "-", "") if ratio is None else (ratio.text, _faster(ratio))
        mark = findings.marks.get((s.task, s.label), "")
        rows.append([s.task, s.label + mark, f"{s.steps.reached} of {s.seeds.size}", s.steps.text, _median(s.steps), text, judged])
    how = (
        f"Environment steps until two consecutive evaluations are at or above {percent}. A time is known up to the gap between two evaluations, "
        "and a seed that never got there counts as later than the end: nothing is dropped and nothing is imputed (Turnbull's estimator; means up "
        f"to the last step at which arriving could be seen). Ratio above 1: {anchor} needs fewer steps. \N{LEFT DOUBLE QUOTATION MARK}At "
        "least\N{RIGHT DOUBLE QUOTATION MARK}: the other method has seeds that never got there, so its true ratio is larger. "
        "Ratios have 95 % t intervals of the logarithm."
    )
    return page.section("Sample efficiency", page.table(header, rows, numbers=("seeds there",), group=True), page.paragraph(how, "note"))


def _faster(ratio) -> str:
    if ratio.bound == "none" or ratio.interval.n < 2:
        return ""
    return "separable from 1" if ratio.separable else "not separable from 1"


def _median(steps) -> str:
    low, high = steps.median
    if steps.note == "no data":
        return "-"
    return f"after {low:,.0f}" if not np.isfinite(high) else f"{low:,.0f} to {high:,.0f}" if high > low else f"{high:,.0f}"


def needed_section(findings: Findings) -> str:
    """How many seeds would separate the pairs that are not."""
    title = "How many seeds would separate them"
    if not findings.needed:
        text = "Every pair is separable, or has no shared seed." if findings.finals else "There is no pair."
        return page.section(title, page.paragraph(text))
    header = ["task", "method", "difference [95 %]", "seeds now", "seeds needed", "by the interval's limits", "still to run"]
    rows = []
    for pair, plan in findings.needed:
        row = [pair.task, pair.other.label, _gap(pair), str(int(pair.interval.n))]
        if plan is None:
            rows.append([*row, "no spread to plan with", "-", "-"])
            continue
        missing = max(plan.estimate - plan.have, 0)
        rows.append([*row, _seeds(plan.estimate), f"{_seeds(plan.fewest)} to {_seeds(plan.most)}", _seeds(missing)])
    how = (
        f"Pairs with {findings.reference.label} whose interval includes 0. Needed: shared seeds after which the paired 95 % t interval leaves "
        "out 0 in 80 % of repetitions, if the measured difference and spread were the true ones; they are not, so the next column takes the "
        "far and the near limit of the difference's interval (the near one is 0, for which no number is enough)."
    )
    return page.section(title, page.table(header, rows, numbers=("seeds now",), group=True), page.paragraph(how, "note"))


def _seeds(number: float) -> str:
    return f"{number:,.0f}" if np.isfinite(number) else f"more than {MOST:,}"


def settings_section(figures: Sequence[str]) -> str:
    """What changes with a setting; nothing where no cell and no variant differs."""
    return page.section("Ablations and hyperparameters", page.grid(figures)) if figures else ""


def critics_section(figures: Sequence[str]) -> str:
    """The critics' estimates where they were logged."""
    return page.section("The critics' estimates", page.seeds_switch("critics"), *figures) if figures else ""


def published_section(findings: Findings) -> str:
    """Published numbers of the same tasks beside the measured ones."""
    header, rows, notes = beside.table(findings.results, findings.summaries)
    without = [task for task in findings.results.tasks if all(row[0] != task for row in rows)]
    parts = [page.paragraph(f"No published numbers for {', '.join(without)}.", "note")] if without else []
    if rows:
        how = page.paragraph("Read the protocols before comparing: budgets, data and settings are the sources' own.", "note")
        table = page.table(header, rows, numbers=("at step", "seeds"), group=True)
        parts = [table, how, page.fold("Sources and protocols", page.bullets(notes)), *parts]
    return page.section("Published numbers", *parts)


def remarks_section(findings: Findings) -> str:
    """What limits the comparison, and every seed that diverged, ended early or blew up."""
    sentences = summary.remarks(findings.results, findings.summaries)
    seeds = summary.seed_remarks(findings.results)
    parts = [page.bullets(sentences)] if sentences else []
    if len(seeds):
        header = [
            "task",
            "method",
            "seed",
            "diverged at",
            "scores not finite",
            "last online step",
            "of",
            "physics blow-ups (largest count)",
        ]
        rows = [
            [
                r.task,
                r.method,
                f"{r.seed}",
                r.diverged_at or "-",
                f"{r.not_finite}",
                f"{r.last_step:,}",
                f"{max(r.final_step, 0):,}",
                f"{r.blowups:,}",
            ]
            for r in seeds.itertuples()
        ]
        parts.append(page.table(header, rows, numbers=header[4:], group=True))
        parts.append(page.paragraph("Seeds listed here are in every number above, as far as they have a finite score there.", "note"))
    else:
        parts.append(page.paragraph("No seed diverged, ended early or had a physics blow-up."))
    return page.section("What to know before quoting this", *parts)


def _gap(pair: Paired) -> str:
    return tables.show_interval(pair.interval, digits=3, sign=True)


def _p(value: float) -> str:
    return "-" if np.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _separable(pair: Paired) -> str:
    return pair.interval.note or ("separable" if pair.separable else "not separable")
