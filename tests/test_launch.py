"""What docs/scale.md shows of Slurm and Kubernetes can be read, and begins what our command line and torchrun take."""

import re
import shlex
import subprocess

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser

from interp.cli import app
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


SCRIPTS, MANIFESTS = blocks("sh"), [list(yaml.safe_load_all(block)) for block in blocks("yaml")]
SHOWN = [shlex.split(line) for line in "\n".join(blocks("console")).splitlines() if line]


def check(words: list[str]) -> str:
    """The name of the interp command that these words begin, by torchrun or not; an error for what is not taken."""
    if words[0] == "torchrun":
        given = get_args_parser().parse_args(words[1:])
        assert (given.module, given.training_script) == (True, "interp")
        words = [given.training_script, *given.training_script_args]
    assert words[0] == "interp"
    command = typer.main.get_command(app).commands[words[1]]
    command.make_context(command.name, words[2:])  # raises for what it does not know
    return words[1]


def pods() -> list[tuple[dict, dict, list[dict]]]:
    """(job, its pod's specification, the services beside it) of every manifest."""
    jobs = [(each, some) for some in MANIFESTS for each in some if each["kind"] == "Job"]
    return [(job, job["spec"]["template"]["spec"], [s for s in some if s["kind"] == "Service"]) for job, some in jobs]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda text: text.split("name=")[1].split()[0])
def test_a_batch_script_is_one_that_bash_reads(script, tmp_path):
    (tmp_path / "script").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "script"], check=True)
    head = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    assert script.startswith("#!/bin/bash\n#SBATCH")
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in head)
    begun = [line for line in script.replace("\\\n", " ").splitlines() if line.startswith("srun ")]
    assert [check(shlex.split(line)[1:]) for line in begun] == re.findall(r"--job-name=(\w+)", script)


def test_a_manifest_begins_what_is_taken_where_it_can_be_found():
    assert [job["metadata"]["name"] for job, _, _ in pods()] == ["harvest", "train"]
    for job, pod, services in pods():
        assert job["apiVersion"] == "batch/v1"
        assert pod["restartPolicy"] in ("Never", "OnFailure")  # a Job takes no other
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            words = container["command"] + container["args"]
            assert all(isinstance(word, str) for word in words)  # numbers would be refused
            assert all(isinstance(each["value"], str) for each in container["env"])
            assert check(words) == job["metadata"]["name"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        if pod.get("subdomain"):
            [service] = services
            assert service["metadata"]["name"] == pod["subdomain"]
            assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": job["metadata"]["name"]}}
            assert f"{job['metadata']['name']}-0.{pod['subdomain']}:29500" in " ".join(words)
            assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(words[words.index("--nnodes") + 1])


def test_what_is_typed_by_hand_is_taken():
    assert [check(words) for words in SHOWN] == ["train", "train", "harvest", "index"]


def test_a_word_that_is_not_known_is_found():
    with pytest.raises(Exception, match="No such option"):
        check(["interp", "harvest", "smollm2", "wiki-en", "blocks.1.hook_resid_post", "--togethr"])
    with pytest.raises(SystemExit):
        check(["torchrun", "--nprocs", "4", "-m", "interp", "train"])
