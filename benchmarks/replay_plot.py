"""The replay as a picture: cost against requests served well, and where the requests went over time.

One SVG for light and dark pages: no background, text and lines in greys and hues that both carry.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay_figures import BIN, Outcome, Slo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY, LOCAL_HUE, CLOUD_HUE, OURS = "#7d8590", "#2f81c7", "#d9822b", "#2da160"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "replay", "font.family": "sans-serif", "font.size": 10,
    "text.color": GREY, "axes.labelcolor": GREY, "axes.edgecolor": GREY, "xtick.color": GREY,
    "ytick.color": GREY, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.titlelocation": "left", "legend.frameon": False, "axes.facecolor": "none",
}  # fmt: skip


def draw(outcomes: Sequence[Outcome], slo: Slo, path: Path) -> None:
    """Write the SVG. Raises `ImportError` without matplotlib."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(_STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=(1, 1.25))
        _compare(left, outcomes, slo)
        _over_time(right, outcomes[-1])
        figure.tight_layout(w_pad=3)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


def _compare(axes: Axes, outcomes: Sequence[Outcome], slo: Slo) -> None:
    dearest = max(one.usd for one in outcomes)
    for one in outcomes:
        ours = one is outcomes[-1]
        colour = OURS if ours else GREY
        axes.plot(one.usd, 100 * one.slo, "o", color=colour, markersize=9 if ours else 7)
        dear = one.usd > 0.7 * dearest
        axes.annotate(
            one.way, (one.usd, 100 * one.slo), xytext=(-9 if dear else 9, -3 if ours else -14),
            textcoords="offset points", ha="right" if dear else "left", color=colour,
            weight="bold" if ours else "normal",
        )  # fmt: skip
    axes.set(xlim=(0, 1.1 * dearest), xlabel="cost, US dollars (cloud and GPUs)", ylabel="% served well")
    axes.set_ylim(max(0, min(100 * one.slo for one in outcomes) - 15), 106)
    axes.set_title(f"First token within {slo.ttft:g} s, {slo.tpot * 1000:g} ms a token")


def _over_time(axes: Axes, ours: Outcome) -> None:
    counts = [[60 / BIN * count for count in ours.over_time[kind]] for kind in ("local", "cloud")]
    minutes = [at * BIN / 60 for at in range(len(counts[0]))]
    hues = (LOCAL_HUE, CLOUD_HUE)
    axes.stackplot(minutes, *counts, labels=("local", "cloud"), colors=hues, step="post", linewidth=0)
    axes.set(xlim=(0, max(minutes)), xlabel="minutes of the trace", ylabel="requests a minute")
    axes.set_title(f"Where they ran under {ours.way}")
    axes.legend(loc="upper right", ncols=2)
