"""Where each environment of `environments/` is, made on first use: in `.once/`, or where SPANLEDGER_ONCE says."""

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOME = Path(os.environ.get("SPANLEDGER_ONCE") or ROOT / ".once")
_making = threading.Lock()


def programs_of(name):
    """The directory of an environment's programs."""
    programs = HOME / name / "bin"
    HOME.mkdir(parents=True, exist_ok=True)
    with _making, (HOME / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other processes make them too
        if not (programs / "spanledger").exists():  # it comes with the last step
            shutil.rmtree(HOME / name, ignore_errors=True)
            _make(name, programs / "python")
    return programs


def _make(name, python):
    _uv("venv", "--python", sys.executable, HOME / name)
    install = ("pip", "install", "--python", python)
    _uv(*install, "-r", HERE / "environments" / f"{name}.txt")
    apart = HERE / "environments" / f"{name}_no_deps.txt"
    if apart.exists():
        _uv(*install, "--no-deps", "-r", apart)
    _uv(*install, "-e", ROOT)


def _uv(*arguments):
    beside = Path(sys.executable).with_name("uv")
    uv = [beside] if beside.exists() else [sys.executable, "-m", "uv"]
    done = subprocess.run([*uv, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
