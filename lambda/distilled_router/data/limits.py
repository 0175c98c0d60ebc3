"""How many rows the files of a data set may have, and must have."""

from __future__ import annotations

# Minimum and maximum of rows of a job, by method, and of its validation rows (Amazon's guide to customizing
# Nova models, 2026-11: data preparation for distillation and tuning).
ROWS = {"distillation": (100, 15_000), "fine_tuning": (8, 20_000)}
VALIDATION_ROWS = (1, 1_000)
# Students that need more rows for fine-tuning (aws-samples/amazon-nova-samples, the validator of fine-tuning
# data: NOVA_2_0_LITE_SAMPLE_BOUNDS).
_LEAST_TUNED = {"amazon.nova-2-lite-v1:0": 200}
# Bedrock never sees the hold-out set. This package's limit: a release asks every row, and checks compare
# every row with training. The most that a split holds out, that a file may have, and that a release asks.
HOLDOUT_ROWS = (1, 20_000)


def least_rows(method: str, student: str = "") -> int:
    """Return how many training rows a job needs.

    Example:
        >>> least_rows("fine_tuning"), least_rows("fine_tuning", "amazon.nova-2-lite-v1:0:256k")
        (8, 200)
    """
    least = ROWS[method][0]
    if method == "fine_tuning":
        least = max([least, *(rows for model, rows in _LEAST_TUNED.items() if student.startswith(model))])
    return least
