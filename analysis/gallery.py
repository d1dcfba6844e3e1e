"""Which figures a report has. Imported only where figures are made: matplotlib takes a second to import."""

from collections.abc import Iterator

import numpy as np

from analysis import tables
from analysis.figures import ablation, comparing, critics, curves
from analysis.figures.drawing import Drawing
from analysis.findings import Findings
from analysis.published import beside
from analysis.summary import Summary

ESTIMATES = {  # columns of the results, and what they say
    "q_bias": "the critics' mean estimate of the action taken less the discounted return that followed (above 0: overestimation)",
    "max_gain": "the mean critic's maximum over the candidates less its mean over them",
    "max_bias": "a critic's estimate of its own favourite candidate less what the other critics say of that candidate",
}


def gallery(findings: Findings, published: bool = False) -> dict[str, list[Drawing]]:
    """All figures by the section that they stand in: "curves", "paired", "profiles", "improvement", "settings", "critics"."""
    return {
        "curves": list(_curves(findings, published)),
        "profiles": _profiles(findings),
        "improvement": _improvement(findings),
        "paired": list(_paired(findings)),
        "settings": list(_settings(findings)),
        "critics": list(_critics(findings)),
    }


def _curves(findings: Findings, published: bool) -> Iterator[Drawing]:
    results, reference = findings.results, findings.reference.label
    for task, stem in tables.file_names(results.tasks).items():
        chosen = findings.of(task)
        both = any(s.success_differs for s in chosen)
        for metric, name in [("score", "score"), ("success", "success")] if both else [("score", score_name(chosen))]:
            others = beside.drawn(results, task, metric) if published else None
            file = f"curve-{stem}" if metric == "score" else f"curve-{stem}.{metric}"
            yield curves.learning_curves(results, chosen, metric, name, others, reference, file)


def score_name(summaries: list[Summary]) -> str:
    """Where the published metric is the success rate, say so."""
    own = [s for s in summaries if np.isfinite(s.success).any() or not s.method.imported]  # imported curves may know only the score
    return "success rate" if own and all(np.isfinite(s.success).any() and not s.success_differs for s in own) else "score"


def _profiles(findings: Findings) -> list[Drawing]:
    tasks, _ = findings.common
    if not tasks or len(findings.scores) < 2 or max(v.size for own in findings.scores.values() for v in own.values()) < 2:
        return []
    return [comparing.profile_plot(findings.results, findings.scores, tasks, findings.reference.label)]


def _improvement(findings: Findings) -> list[Drawing]:
    found = {label: one for label, one in findings.improvement.items() if one[0].n > 1}
    return [comparing.improvement_plot(findings.results, findings.reference.label, found)] if found else []


def _paired(findings: Findings) -> Iterator[Drawing]:
    for task, stem in tables.file_names(findings.results.tasks).items():
        pairs = [pair for pair in findings.finals if pair.task == task and pair.interval.n]
        if pairs:
            yield comparing.paired_plot(findings.results, pairs, f"paired-{stem}")


def _settings(findings: Findings) -> Iterator[Drawing]:
    results, found = findings.results, ablation.groups(findings.summaries)
    labels = [f"{group.task} {group.name}" for group in found]
    names = tables.file_names(list(dict.fromkeys(labels)))
    for label, group in zip(labels, found, strict=True):
        stem = names[label]
        yield ablation.value_curves(results, group, score_name(findings.of(group.task)), f"values-{stem}")
        if len(group.axes) == 2:
            yield ablation.heat_map(group, f"map-{stem}")
        for axis, name in enumerate(group.axes):
            yield ablation.sensitivity(group, axis, f"sensitivity-{stem}-{next(iter(tables.file_names([name]).values()))}")
    for members in ablation.variants(findings.summaries):
        stem = next(iter(tables.file_names([f"{members[0].task} {members[0].method.agent}"]).values()))
        yield ablation.variant_plot(results, members, f"variants-{stem}")


def _critics(findings: Findings) -> Iterator[Drawing]:
    results = findings.results
    for metric, said in ESTIMATES.items():
        if metric not in results.frame.columns:
            continue
        for task, stem in tables.file_names(results.tasks).items():
            online = {s.label: results.rows(task, s.label) for s in findings.of(task)}
            logged = [
                label for label, rows in online.items() if np.isfinite(rows.loc[rows["phase"] == "online", metric].astype(float)).any()
            ]
            if logged:
                yield critics.critics_plot(results, task, logged, metric, said, findings.reference.label, f"{metric}-{stem}")
