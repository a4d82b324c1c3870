"""Reference values for src/eval: scikit-learn and PyTorch on random inputs.

Usage: python scripts/goldens/eval.py     (needs numpy, scikit-learn, torch; writes tests/golden/eval/)
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

OUT = Path(__file__).resolve().parents[2] / "tests/golden/eval"


def rounded(array, digits=9):
    return [round(float(x), digits) for x in np.asarray(array).ravel()]


def expected_calibration_error(probabilities, labels, bins=15):
    """Guo et al. 2017, as in their published code: bins open below and closed above."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    error = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


def log_loss(labels, probabilities):
    """scikit-learn's, also of rows that do not add up to one, which it would scale."""
    every = np.arange(probabilities.shape[1])
    if np.allclose(probabilities.sum(axis=1), 1):
        return metrics.log_loss(labels, probabilities, labels=every)
    eps = np.finfo(np.float64).eps
    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(eps, 1 - eps)).mean())


def metrics_case(rng, n, c, sharpness, classes_that_occur=None, steps=None):
    """`steps` rounds probabilities so coarsely that classes tie; the lower index then wins, as in numpy.argmax."""
    labels = rng.integers(0, classes_that_occur or c, n)
    logits = rng.normal(size=(n, c)) * sharpness
    logits[np.arange(n), labels] += sharpness
    # Powers of two in the denominator make the rounded numbers exact in binary and in text.
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = np.round(probabilities * 2**20) / 2**20
    if steps:
        probabilities = np.floor(probabilities * steps)
        probabilities[probabilities.sum(axis=1) == 0] = 1
        # Multiples of a power of two, so that a row of equal shares is one.
        probabilities /= 2.0 ** np.ceil(np.log2(probabilities.sum(axis=1, keepdims=True)))
    else:
        probabilities[np.arange(n), probabilities.argmax(axis=1)] += 1 - probabilities.sum(axis=1)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    top5 = float((order[:, :5] == labels[:, None]).any(axis=1).mean())
    predicted = probabilities.argmax(axis=1)
    every = np.arange(c)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    return {
        "num_classes": c,
        "labels": labels.tolist(),
        "probabilities": rounded(probabilities, 20),
        "top1": metrics.accuracy_score(labels, predicted),
        "top5": top5 if steps or c <= 5 else metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=every),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "log_loss": log_loss(labels, probabilities),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=every).tolist(),
    }


def knn_case(rng):
    n, m, dim, c, k, temperature = 150, 40, 12, 5, 9, 0.1
    centres = rng.normal(size=(c, dim))
    labels, query_labels = rng.integers(0, c, n), rng.integers(0, c, m)
    bank = (centres[labels] + rng.normal(size=(n, dim))).astype(np.float32).round(4)
    queries = (centres[query_labels] + rng.normal(size=(m, dim))).astype(np.float32).round(4)
    # The weighted vote as in the SimSiam monitors built on Wu et al. 2018.
    unit = lambda x: torch.nn.functional.normalize(torch.tensor(x, dtype=torch.float64), dim=1)
    similarity, rows = (unit(queries) @ unit(bank).T).topk(k, dim=1)
    weight = (similarity / temperature).exp()
    votes = torch.zeros(m, c, dtype=torch.float64).scatter_add_(1, torch.tensor(labels)[rows], weight)
    uniform = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(bank, labels)
    assert list(uniform.classes_) == list(range(c))
    return {
        "dim": dim,
        "num_classes": c,
        "bank": rounded(bank, 4),
        "labels": labels.tolist(),
        "queries": rounded(queries, 4),
        "k": k,
        "temperature": temperature,
        "similarity": rounded(votes / votes.sum(dim=1, keepdim=True)),
        "uniform": rounded(uniform.predict_proba(queries)),
    }


def probe_cases(rng):
    n, m, dim, c = 240, 200, 10, 4
    centres = rng.normal(size=(c, dim)) * 0.7
    scale, shift = np.exp(rng.normal(size=dim)), rng.normal(size=dim) * 3
    labels, test_labels = rng.integers(0, c, n), rng.integers(0, c, m)
    make = lambda labels: ((centres[labels] + rng.normal(size=(len(labels), dim))) * scale + shift).astype(np.float32)
    train, test = make(labels).round(4), make(test_labels).round(4)
    train[:, 3] = test[:, 3] = 0.0  # a dead feature, as ReLU leaves them
    cases = []
    for scaling in ["standardize", "l2_normalize", "none"]:
        for l2 in [1e-4, 1e-2]:
            x, x_test = train.astype(np.float64), test.astype(np.float64)
            if scaling == "standardize":
                scaler = StandardScaler().fit(x)
                x, x_test = scaler.transform(x), scaler.transform(x_test)
            elif scaling == "l2_normalize":
                x, x_test = normalize(x), normalize(x_test)
            # Theirs is sum CE + ||W||^2 / (2 C); ours is mean CE + l2 ||W||^2.
            model = LogisticRegression(
                C=1 / (2 * l2 * n), solver="newton-cholesky", tol=1e-10, max_iter=1000
            ).fit(x, labels)
            weight, bias = model.coef_, model.intercept_
            if scaling == "standardize":
                weight = weight / scaler.scale_
                bias = bias - weight @ scaler.mean_
            cases.append(
                {
                    "scaling": scaling,
                    "l2": l2,
                    "weight": rounded(weight),
                    "bias": rounded(bias),
                    "probabilities": rounded(model.predict_proba(x_test)),
                    "accuracy": model.score(x_test, test_labels),
                }
            )
    return {
        "dim": dim,
        "num_classes": c,
        "train": rounded(train, 4),
        "labels": labels.tolist(),
        "test": rounded(test, 4),
        "test_labels": test_labels.tolist(),
        "cases": cases,
    }


def health_case(rng):
    """RankMe's effective rank and the uniformity of Wang & Isola, each by its definition."""
    n, dim = 60, 8
    x = (rng.normal(size=(n, dim)) @ np.diag(2.0 ** -np.arange(dim))).astype(np.float32).round(4)
    x[:, 5] = 0.25
    singular = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    share = singular / singular.sum()
    unit = torch.nn.functional.normalize(torch.tensor(x, dtype=torch.float64), dim=1)
    return {
        "dim": dim,
        "features": rounded(x, 4),
        "effective_rank": float(np.exp(-(share * np.log(share + 1e-300)).sum())),
        "uniformity": float(torch.pdist(unit).pow(2).mul(-2).exp().mean().log()),
        "mean_norm": float(np.linalg.norm(x.astype(np.float64), axis=1).mean()),
        "normalized_std": float(unit.std(dim=0, unbiased=False).mean()),
    }


def write(name, value):
    (OUT / name).write_text(json.dumps(value) + "\n")


def main():
    warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
    rng = np.random.default_rng(20201120)
    OUT.mkdir(parents=True, exist_ok=True)
    cases = [(200, 6, 1.0), (60, 3, 4.0), (80, 10, 0.3), (50, 8, 2.0, 5)]
    metrics_cases = [metrics_case(rng, *case) for case in cases]
    # Ties, one class only, ties among absent classes; a generator of their own leaves what follows as it was.
    other = np.random.default_rng(7)
    ties = [(150, 9, 0.5, None, 8), (40, 5, 1.0, 1), (60, 12, 0.2, 3, 4)]
    write("metrics.json", metrics_cases + [metrics_case(other, *case) for case in ties])
    write("knn.json", knn_case(rng))
    write("linear_probe.json", probe_cases(rng))
    write("health.json", health_case(rng))
    np.save(OUT / "features.npy", np.arange(6, dtype="<f4").reshape(3, 2) / 2)
    np.save(OUT / "labels.npy", np.array([3, 1, -1, 2], dtype="<i8"))


if __name__ == "__main__":
    main()
