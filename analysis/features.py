"""What a network sees in the kept and in the discarded: over the files of `sage features`.

    sage features runs/one_run
    python -m analysis.features runs/one_run/features/features_train.safetensors --out features.html

One self-contained page: t-SNE and UMAP of the features coloured by kept or discarded and by class, class balance and
margin of the kept against all, and a montage of 24 of the kept where the data set is found. The layouts are drawn from
at most --most examples (every k-th), by default 3000; they take a minute or so.
"""

from __future__ import annotations

import argparse
import html
import json
import pathlib
import re
import sys
import warnings

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import pictures
from analysis.figures import COLOURS, MARKERS, legend_beside, new
from analysis.report import STYLE, image, section
from analysis.study import StudyError


class Features:
    """The rows of all files of one export; `kept` is None for the test split."""

    def __init__(self, path: pathlib.Path):
        from safetensors import SafetensorError, safe_open

        several = re.fullmatch(r"(.*)_\d+_of_(\d+)\.safetensors", path.name)
        paths = [path] if not several else [
            path.with_name(f"{several[1]}_{i}_of_{several[2]}.safetensors") for i in range(1, int(several[2]) + 1)]
        parts: dict[str, list[np.ndarray]] = {}
        self.about: dict[str, str] = {}
        for one in paths:
            try:
                with safe_open(one, framework="numpy") as file:
                    self.about = file.metadata() or {}
                    for name in file.keys():  # noqa: SIM118: no mapping
                        parts.setdefault(name, []).append(file.get_tensor(name))
            except (OSError, SafetensorError) as error:
                raise StudyError(f"{one}: cannot be read ({error})") from error
        try:
            self.features = np.concatenate(parts["features"])
            self.probabilities = np.concatenate(parts["probabilities"])
            self.labels = np.concatenate(parts["labels"])
            self.ids = np.concatenate(parts["ids"])
            self.class_names: list[str] = json.loads(self.about["class_names"])
        except (KeyError, ValueError) as error:
            raise StudyError(f"{path}: not a file of `sage features` ({error!r})") from error
        self.kept = np.concatenate(parts["kept"]).astype(bool) if "kept" in parts else None

    def margins(self) -> np.ndarray:
        """Probability of the label less the highest of the others."""
        rows = np.arange(len(self.labels))
        others = self.probabilities.copy()
        others[rows, self.labels] = -1.0
        return self.probabilities[rows, self.labels] - others.max(1)


def shown_rows(count: int, most: int) -> np.ndarray:
    """Every k-th of `count` rows, `most` of them at most."""
    return np.arange(0, count, -(-count // most))


def tsne(features: np.ndarray) -> np.ndarray:
    """[N, features] -> [N, 2], the same each time."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)


def umap(features: np.ndarray) -> np.ndarray:
    """[N, features] -> [N, 2], the same each time."""
    neighbours = min(15, len(features) - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # in a notebook: a bar that is not wanted
        warnings.filterwarnings("ignore", message="n_jobs value .* overridden")  # said for 1 as well
        from umap import UMAP  # compiles itself for seconds

        layout = UMAP(n_neighbors=neighbours, min_dist=0.1, init="pca", random_state=0, n_jobs=1)
        return layout.fit_transform(features)


LAYOUTS = {"t-SNE": tsne, "UMAP": umap}


def draw_by_kept(axes: Axes, plane: np.ndarray, kept: np.ndarray) -> None:
    axes.scatter(*plane[~kept].T, s=5, color="#c4c4c4", linewidths=0, label="discarded")
    axes.scatter(*plane[kept].T, s=7, color=COLOURS[0], linewidths=0, label="kept")


def draw_by_class(axes: Axes, plane: np.ndarray, labels: np.ndarray, names: list[str]) -> None:
    if len(names) > 20:  # too many to name
        axes.scatter(*plane.T, s=6, c=labels, cmap="viridis", linewidths=0)
        return
    colours = COLOURS if len(names) <= len(COLOURS) else colormaps["tab10" if len(names) <= 10 else "tab20"].colors
    for number, name in enumerate(names):
        axes.scatter(*plane[labels == number].T, s=8, color=[colours[number]], linewidths=0,
                     marker=MARKERS[number % len(MARKERS)], label=name)


def places(found: Features, most: int) -> Figure:
    """t-SNE above, UMAP below; by kept or discarded on the left (where it is known), by class on the right."""
    rows = shown_rows(len(found.labels), most)
    columns = 1 if found.kept is None else 2
    figure = Figure(figsize=(1.6 + 4.4 * columns, 8.4), layout="constrained")
    for (name, layout), line in zip(LAYOUTS.items(), figure.subplots(2, columns, squeeze=False), strict=True):
        plane = layout(found.features[rows])
        if found.kept is not None:
            draw_by_kept(line[0], plane, found.kept[rows])
            line[0].set_title(f"{name}: kept or discarded", fontsize=10)
        draw_by_class(line[-1], plane, found.labels[rows], found.class_names)
        line[-1].set_title(f"{name}: class", fontsize=10)
        for axes in line:
            axes.set_xlabel(f"{name} 1 (no unit)", fontsize=8)
            axes.set_ylabel(f"{name} 2 (no unit)", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
            if axes.get_legend_handles_labels()[0]:
                beside = axes is line[-1]
                axes.legend(fontsize=8, markerscale=2, frameon=False, loc="center left" if beside else "upper center",
                            bbox_to_anchor=(1.0, 0.5) if beside else (0.5, -0.06), ncols=1 if beside else 2)
    return figure


def balance(found: Features) -> Figure:
    """Share of each class in all and in the kept."""
    assert found.kept is not None
    figure, axes = new(8, 3.4)
    count = len(found.class_names)
    everything = np.bincount(found.labels, minlength=count) / len(found.labels)
    kept = np.bincount(found.labels[found.kept], minlength=count) / max(1, found.kept.sum())
    axes.bar(np.arange(count) - 0.2, 100 * everything, width=0.4, color="#b0b0b0", label="all")
    axes.bar(np.arange(count) + 0.2, 100 * kept, width=0.4, color=COLOURS[0], label="kept")
    if count <= 25:
        axes.set_xticks(range(count), found.class_names, rotation=40, ha="right", fontsize=8)
    axes.set_ylabel("share of the examples, %")
    legend_beside(axes, 2)
    return figure


def margin_histogram(found: Features) -> Figure:
    """Margins of all, and of the kept, as shares of each."""
    figure, axes = new(8, 3.4)
    margins, bins = found.margins(), np.linspace(-1, 1, 41)
    axes.hist(margins, bins=bins, weights=np.full(len(margins), 100 / len(margins)), color="#b8b8b8", label="all")
    if found.kept is not None and found.kept.any():
        kept = margins[found.kept]
        axes.hist(kept, bins=bins, weights=np.full(len(kept), 100 / len(kept)), color=COLOURS[0], histtype="step",
                  linewidth=1.6, label="kept")
    axes.set_xlabel("margin: probability of the label less the highest other")
    axes.set_ylabel("share of the examples, %")
    legend_beside(axes, 2)
    return figure


def facts(found: Features) -> pd.DataFrame:
    """What the export is of."""
    names = (("data", "data"), ("split", "split"), ("network", "model"))
    rows = {name: found.about.get(key, "?") for name, key in names}
    rows |= {"examples": str(len(found.labels)), "features": str(found.features.shape[1])}
    if found.kept is not None:
        rows["kept"] = f"{found.kept.sum()} ({found.kept.mean():.1%})"
    return pd.DataFrame({"": rows})


def class_table(found: Features) -> pd.DataFrame | None:
    """Balance and margin of the kept against all, by class and together; None where nothing is known to be kept."""
    if found.kept is None:
        return None
    margins, rows = found.margins().astype(float), []
    for number, name in [*enumerate(found.class_names), (None, "all classes")]:
        here = found.labels == number if number is not None else np.ones(len(found.labels), dtype=bool)
        kept = here & found.kept
        rows.append({"class": name, "examples": here.sum(), "kept": kept.sum(),
                     "share of all, %": 100 * here.mean(),
                     "share of the kept, %": 100 * kept.sum() / max(1, found.kept.sum()),
                     "median margin of all": np.median(margins[here]) if here.any() else np.nan,
                     "median margin of the kept": np.median(margins[kept]) if kept.any() else np.nan})
    return pd.DataFrame(rows).set_index("class").round({column: 3 if "margin" in column else 1 for column in rows[0]})


def picks(found: Features, data_path: str) -> Figure | None:
    """24 of the kept, evenly over their ids; None where none is known or the data set is not found."""
    name = found.about.get("data", "")
    folder = pictures.find_folder(name, data_path)
    if found.kept is None or folder is None or not found.kept.any():
        return None
    images = pictures.train_images(name, folder)
    rows = np.flatnonzero(found.kept)
    rows = rows[np.linspace(0, len(rows) - 1, min(24, len(rows))).astype(int)]
    if found.ids[rows].max() >= len(images):
        return None
    margins = found.margins()
    titles = [f"{found.class_names[found.labels[row]]}\n{margins[row]:+.2f}" for row in rows]
    return pictures.montage(images, list(found.ids[rows]), titles, "")


def page(found: Features, most: int, data_path: str) -> str:
    title = "Features of {} on {} ({})".format(*(found.about.get(key, "?") for key in ("model", "data", "split")))
    total = len(found.labels)
    kept = "" if found.kept is None else f", {int(found.kept.sum())} of {total} kept"
    parts = [f"<h1>{html.escape(title)}</h1>",
             f"<p>{total} examples{kept}; {found.features.shape[1]} features of "
             f"{html.escape(found.about.get('checkpoint', '?'))}.</p>",
             section("t-SNE and UMAP of the features",
                     image(places(found, most), f"t-SNE and UMAP of at most {most} examples", vector=False))]
    if found.kept is not None:
        parts.append(section("Class balance", image(balance(found), "Share of each class in all and in the kept")))
    parts.append(section("Margin", image(margin_histogram(found), "Margins of all and of the kept")))
    chosen = picks(found, data_path)
    if chosen is not None:
        caption = "24 of the kept, evenly over their ids, with label and margin"
        parts.append(section("24 of the kept", image(chosen, caption, vector=False)))
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.features", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, help="a file of `sage features` (any of several parts)")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="the page (default: features.html there)")
    parser.add_argument("--most", type=int, default=3000, help="examples in the layouts")
    parser.add_argument("--data", default="", help="folder of the data set (default: as the program finds it)")
    given = parser.parse_args(arguments)
    out = given.out or given.file.with_name("features.html")
    if not out.parent.is_dir():
        print(f"analysis.features: {out.parent} is no folder: make it, or name another --out", file=sys.stderr)
        return 5
    try:
        out.write_text(page(Features(given.file), max(10, given.most), given.data))
    except StudyError as error:
        print(f"analysis.features: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"analysis.features: {out}: cannot be written ({error.strerror})", file=sys.stderr)
        return 5
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
