"""The workflows: what they call is there, and they may do no more than they must."""

import re

import pytest
import yaml

from chapters import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.yml")
}
TARGETS = set(
    re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)
TARGETS = {name for line in TARGETS for name in line.split()}


def steps():
    for name, workflow in WORKFLOWS.items():
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                yield name, step


def missing(command):
    """What a step calls that is not there: targets of make, files of the tree."""
    made = [
        target
        for words in re.findall(r"\bmake((?: +[\w=-]+)+)", command)
        for target in words.split()
        if "=" not in target
    ]
    files = re.findall(r"(?:^|\s)(\.[\w/.]*/[\w.]+)", command)
    absent = [file for file in files if not (ROOT / file).exists()]
    return [target for target in made if target not in TARGETS] + absent


def test_both_workflows_are_there():
    assert set(WORKFLOWS) == {"pages", "weekly"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_command_of_a_workflow_exists(name):
    commands = [step["run"] for owner, step in steps() if owner == name and "run" in step]
    assert all(missing(command) == [] for command in commands)


def test_a_command_that_is_not_there_is_seen():
    assert missing("make book no-such") == ["no-such"]
    assert missing(".ci/walk") == [".ci/walk"]
    assert missing("make pdf archive STRICT=1") == []


def test_actions_are_of_github_and_pinned_by_major_version():
    used = [step["uses"] for _, step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)


def test_permissions_are_given_where_they_are_needed_and_nowhere_else():
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
    jobs = {
        (name, job): entry.get("permissions", {})
        for name, workflow in WORKFLOWS.items()
        for job, entry in workflow["jobs"].items()
    }
    writing = {
        job: {what for what, how in permissions.items() if how == "write"}
        for job, permissions in jobs.items()
    }
    assert writing == {
        ("pages", "check"): set(),
        ("pages", "publish"): {"pages", "id-token"},
        ("weekly", "newest"): set(),
        ("weekly", "lowest"): set(),
        ("weekly", "report"): {"issues"},
    }
