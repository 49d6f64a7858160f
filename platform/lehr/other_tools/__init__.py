"""Learning curves that other tools recorded: read, diagnosed in the words of the practice, and drawn.

`read_logs` takes what the tools leave: the CSV files of Keras, Lightning, timm and Ultralytics, `trainer_state.json` of
Hugging Face, exports of Weights & Biases, TensorBoard's event files, MLflow's run folders, JSON lines, and any other
CSV file whose columns are named or mapped. `diagnose_log` says what the curves show, and what nobody can say of them
because it was not recorded.
"""

from lehr.other_tools.diagnosis import Verdict, diagnose_log
from lehr.other_tools.log import Curve, Log
from lehr.other_tools.read import is_log, read_logs

__all__ = ["Curve", "Log", "Verdict", "diagnose_log", "is_log", "read_logs"]
