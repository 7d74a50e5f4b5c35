import json
import os
import subprocess
import sys


def test_a_million_documents_are_ranked_exactly_in_little_memory() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.metrics.search_at_scale"],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(told.stdout.splitlines()[-1])
    assert found["right_rows"]
    assert found["score_error"] < 1e-6
    assert found["mrr"] == 1.0
    assert found["complete"]
    assert found["peak_bytes"] < 1.5e9  # the corpus alone, in float32, is that much
