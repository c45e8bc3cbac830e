"""A service that recognises handwritten digits, watched by mlwatch. Half way, somebody upstream inverts the pixels."""

import argparse
import time

import mlwatch
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

WHITE = 16  # pixels go from 0 to 16
MOST_ROWS = 20
PAUSE = 0.02  # seconds between two requests


def train(digits, rows=None):
    """A model, trained on so many rows or all that are set apart for it, and the rows and labels that it has not seen."""
    pixels = digits.data.astype(np.float32)
    known, unseen, known_labels, labels = train_test_split(pixels, digits.target, test_size=0.5, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(known[:rows], known_labels[:rows]), unseen, labels


def requests(pixels, labels, seconds):
    """Batches of 1 to 20 rows, as clients would send them."""
    rng = np.random.default_rng()
    start = time.monotonic()
    inverted = False
    while (elapsed := time.monotonic() - start) < seconds:
        if not inverted and elapsed >= seconds / 2:
            inverted = True
            print(f"{time.time():.3f} inverted", flush=True)
        rows = rng.integers(len(pixels), size=rng.integers(1, MOST_ROWS, endpoint=True))
        yield WHITE - pixels[rows] if inverted else pixels[rows], labels[rows]
        time.sleep(PAUSE)


def serve(seconds, ring_dir):
    digits = load_digits()
    model, pixels, labels = train(digits)
    monitor = mlwatch.Monitor(
        "digits",
        n_classes=10,
        n_features=64,
        class_names=[str(name) for name in digits.target_names],
        feature_names=digits.feature_names,
        dir=ring_dir,
    )
    with monitor:
        for x, y in requests(pixels, labels, seconds):
            proba = model.predict_proba(x)
            monitor.collect(proba, features=x, labels=y)  # the one line that an inference loop gains


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40, help="how long to serve [default: 40]")
    parser.add_argument("--dir", help="directory of the rings [default: $MLWATCH_DIR, else /dev/shm/mlwatch]")
    arguments = parser.parse_args()
    serve(arguments.seconds, arguments.dir)
