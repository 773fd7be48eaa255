"""What an architecture is worth; `ESTIMATORS` names each with the file that holds it."""

ESTIMATORS: dict[str, str] = {
    "training": "test accuracy of the specialised network after SGD (jnas.estimators.training)",
    "predictor": "a learned combination of training-free scores, with uncertainty (jnas.estimators.predictor)",
    "table": "test accuracy that somebody measured, looked up in a CSV (jnas.estimators.table)",
}
