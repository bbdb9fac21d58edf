"""The `sage` program for tests: runs it, alone or under mpirun, and compares what it leaves."""

import os
import subprocess
from pathlib import Path

BUILD = Path(os.environ.get("SAGE_BUILD_DIR", Path(__file__).parents[2] / "build" / "cuda"))
SAGE = BUILD / "bin" / "sage"
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMP_NUM_THREADS": "1",
}

if not SAGE.exists():
    raise FileNotFoundError(f"{SAGE}: build the program first, or set SAGE_BUILD_DIR")


def sage(*arguments, ranks=1, seconds=120):
    """Runs the program, alone or under mpirun, and returns it when it has ended."""
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] if ranks > 1 else []
    return subprocess.run(
        [*launcher, str(SAGE), *map(str, arguments)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False,
    )


SMALL = [
    "training.batch_size=64", "training.lr=0.05", "model.name=cnn", "selection.fraction=0.2",
    "selection.warmup_epochs=1", "selection.refresh_epochs=2", "selection.sketch.size=32", "output.save_interval=1",
    "output.keep_checkpoints=4",
]


def fails(result, status, *words):
    """One message, the status, and nothing of a stack trace."""
    text = result.stderr
    assert result.returncode == status, text
    for word in words:
        assert word in text, text
    assert text.count("error: ") == 1, text


def train(folder, *extra, ranks=2, epochs=4, flags=()):
    result = sage("train", *SMALL, f"training.epochs={epochs}", f"output_dir={folder}", *extra, *flags, ranks=ranks)
    assert result.returncode == 0, result.stderr
    return result


def tensors(path):
    from safetensors.numpy import load_file

    return load_file(path)


def same_tensors(first, second):
    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)
