"""What an architecture is worth; `ESTIMATORS` names each with the file that holds it."""

ESTIMATORS: dict[str, str] = {
    "training": "test accuracy of the specialised network after SGD (jnas.estimators.training)",
    "batch_training": "test accuracies of many cells after SGD, in one program (jnas.estimators.batch_training)",
    "predictor": "a learned combination of training-free scores, with uncertainty (jnas.estimators.predictor)",
    "table": "test accuracy that somebody measured, looked up in a CSV (jnas.estimators.table)",
    "compact_table": "accuracies by seed and epoch in one small file: jnas table (jnas.estimators.compact_table)",
}
