"""Golden values for the report's PCA, from scikit-learn. Usage: report_pca.py OUT.json"""

import json
import sys

import numpy as np
from sklearn.decomposition import PCA


def rows(num_rows, dim):
    """The same closed formula as in src/report/pca.rs."""
    row, column = np.meshgrid(np.arange(num_rows, dtype=np.float64), np.arange(dim, dtype=np.float64), indexing="ij")
    values = ((row * 37 + column * 17) % 101) / 101 * (1 + column % 5) + (row % 7) * 0.3 * column / dim
    return values.astype(np.float32).astype(np.float64)


cases = []
for num_rows, dim in [(12, 3), (60, 16), (40, 130)]:
    x = rows(num_rows, dim)
    pca = PCA(n_components=2, svd_solver="full").fit(x)
    projected = pca.transform(x)
    for idx in range(2):
        direction = pca.components_[idx]
        if direction[np.argmax(np.abs(direction))] < 0:
            projected[:, idx] *= -1
    cases.append(
        {
            "rows": num_rows,
            "dim": dim,
            "explained": pca.explained_variance_ratio_.tolist(),
            "projected": np.round(projected, 7).tolist(),
        }
    )
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump({"cases": cases}, file)
    file.write("\n")
