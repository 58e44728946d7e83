"""The project as a stranger installs it: `make test-installed` (minutes; the only test that reaches a package index).

Builds a wheel of the tracked files, installs it into a fresh environment with the newest versions that pip finds (no
lock), and from another folder runs the README's command lines. `TORCH=torch==2.13.0` pins torch alone, where the newest
would bring gigabytes of CUDA; `KEEP=folder` keeps what was made.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONG = re.compile(
    r"interp (harvest|train|sweep|selftest|evaluate|explain|export|convert|unpack|push|pull|publish|verify|dashboard|setup|neuron)\b"
    r"|interp (index|pack|library|labels) |--sweep|contrast:|effects|saves?/|saes/"
)
"""Lines that take minutes, need files of the reader's own, or a network; the rest are run."""
NOISE = re.compile(r"warning|deprecat|traceback", re.IGNORECASE)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def lines() -> list[str]:
    """The README's command lines that take seconds, comments cut off."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    found = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in found if line.startswith("interp ") and not LONG.search(line)]


def build(folder: Path) -> Path:
    """The wheel, of a copy of what git tracks."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(folder / "source")]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_shipped(environment: Path) -> None:
    """Every tracked file of the shipped SAE was installed."""
    wanted = subprocess.check_output(
        ["git", "ls-files", "saes", *(f"requirements/{name}.txt" for name in ("embedded", "dinov2", "whisper"))],
        cwd=ROOT,
        text=True,
    )
    missing = [n for n in wanted.splitlines() if not (environment / "share" / "interp" / n).is_file()]
    assert not missing, f"not installed: {missing}; add them to data-files in pyproject.toml"


def check_dashboard(program: Path, folder: Path, env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([program, "dashboard", "--port", str(port)], cwd=folder, env=env, start_new_session=True)
    try:
        for _ in range(300):
            assert server.poll() is None, "the dashboard ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError("the dashboard never answered")
    finally:
        os.killpg(server.pid, signal.SIGKILL)


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(os.environ.get("KEEP") or made)
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir(parents=True)
        wheel, environment = build(folder), folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet"]
        if torch := os.environ.get("TORCH"):
            subprocess.run([*pip, torch], check=True)
        subprocess.run([*pip, *([torch] if torch else []), wheel], check=True)
        check_shipped(environment)
        program = environment / "bin" / "interp"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
        env |= {"INTERP_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        env["PATH"] = f"{environment / 'bin'}:{env['PATH']}"
        subprocess.run([program, "setup"], check=True, env=env, cwd=elsewhere, stdout=subprocess.DEVNULL)
        readme = next(re.finditer(r"^SAE=(\S+)$", (ROOT / "README.md").read_text(), re.MULTILINE))[1]
        again = ["interp library", "interp --version", "interp search batchtopk-9216 'token:/paris/i'"]
        failed = []
        for line in [*lines(), *again]:
            began = time.monotonic()
            run = subprocess.run(
                ["bash", "-c", line], cwd=elsewhere, env=env | {"SAE": readme}, capture_output=True, text=True
            )
            bad = run.returncode != 0 or NOISE.search(run.stderr) or not run.stdout.strip()
            say(f"{'FAILED' if bad else 'ok':6} {time.monotonic() - began:5.1f} s  {line}")
            if bad:
                failed.append(line)
                say(f"{run.stdout[-500:]}\n{run.stderr[-2000:]}")
        listed = subprocess.check_output([program, "library"], env=env, cwd=elsewhere, text=True)
        assert "batchtopk-9216" in listed, listed
        check_dashboard(program, elsewhere, env)
        code = "import importlib.metadata as m; print(*(f'{n} {m.version(n)}' for n in ('torch', 'transformers', 'transformer-lens', 'streamlit', 'typer', 'duckdb')), sep=', ')"
        say(subprocess.check_output([environment / "bin" / "python", "-c", code], text=True).strip())
        assert not failed, f"{len(failed)} lines failed"


if __name__ == "__main__":
    main()
