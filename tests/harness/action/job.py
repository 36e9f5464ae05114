"""A runner of composite actions, as small as ours needs: expressions, steps, and the files and
commands they speak through.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ARTIFACT_URL = "https://github.com/owner/repository/actions/runs/7/artifacts/1"

_EXPRESSION = re.compile(r"\$\{\{ *(.*?) *\}\}")
_COMMAND = re.compile(r"::([a-z-]+)(?: ([^\n]*?))?::([^\n]*)")


def read_action(root):
    """The action as GitHub reads it."""
    return yaml.safe_load((root / "action.yml").read_text(encoding="utf-8"))


@dataclass
class Job:
    """One job that uses the action: what it is given, and what came of it."""

    action: dict
    workspace: Path
    temporary: Path
    inputs: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    outcomes: dict = field(default_factory=dict)
    outputs: dict = field(default_factory=dict)
    """Of steps, by their ids."""
    exit_code: int = 0
    log: str = ""
    summary: str = ""
    uploads: list = field(default_factory=list)
    """What each artifact would hold: names of files."""

    def run(self):
        """All steps in order; as on GitHub, a step after one that failed runs only where its
        condition says always().
        """
        for name, declared in self.action["inputs"].items():
            self.inputs.setdefault(name, declared["default"])
        for number, step in enumerate(self.action["runs"]["steps"]):
            self._step(step, str(step.get("id", number)))
        return self

    @property
    def results(self):
        """The outputs of the action."""
        return {
            name: self._evaluate(output["value"]) for name, output in self.action["outputs"].items()
        }

    @property
    def commands(self):
        """(command, properties, message) of every line that the runner would obey."""
        found, stopped = [], None
        for line in re.split(r"\r\n|\r|\n", self.log):
            if stopped is not None:
                stopped = None if line == f"::{stopped}::" else stopped
                continue
            match = _COMMAND.match(line.lstrip())
            if match is None:
                continue
            name, properties, message = match.groups()
            if name == "stop-commands":
                stopped = message
            else:
                decoded = message.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
                found.append(
                    (
                        name,
                        dict(part.split("=", 1) for part in (properties or "").split(",") if part),
                        decoded,
                    )
                )
        return found

    def _step(self, step, name):
        condition = _EXPRESSION.fullmatch(step.get("if", "${{ success() }}")).group(1)
        if not all(self._holds(term) for term in condition.split(" && ")):
            self.outcomes[name] = "skipped"
            return
        if "uses" in step:
            self.outcomes[name] = "success"
            self._use(step, name)
            return
        code = self._shell(step, name)
        self.outcomes[name] = "failure" if code else "success"
        self.exit_code = self.exit_code or code

    def _use(self, step, name):
        if step["uses"].startswith("actions/upload-artifact@"):
            folder = Path(self._evaluate(step["with"]["path"]))
            if folder.is_dir():
                self.uploads.append({file.name for file in folder.iterdir()})
                self.outputs[name] = {"artifact-url": ARTIFACT_URL}

    def _shell(self, step, name):
        assert step["shell"] == "bash"
        files = {
            kind: self.temporary / f"{kind}-{name}"
            for kind in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")
        }
        for file in files.values():
            file.write_bytes(b"")
        script = self.temporary / f"{name}.sh"
        script.write_text(step["run"])
        # The command line that GitHub documents for `shell: bash`.
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.workspace,
            env={
                **self.environment,
                "RUNNER_TEMP": str(self.temporary),
                **{kind: str(file) for kind, file in files.items()},
                **{key: self._evaluate(value) for key, value in step.get("env", {}).items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.log += done.stdout.decode()
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        assert files["GITHUB_ENV"].read_text() == ""
        lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
        self.outputs[name] = dict(line.split("=", 1) for line in lines)
        return done.returncode

    def _holds(self, term):
        if term == "always()":
            return True
        if term == "success()":
            return "failure" not in self.outcomes.values()
        operand = re.fullmatch(r"(\S+) != ''", term).group(1)
        return self._value(operand) != ""

    def _evaluate(self, text):
        return _EXPRESSION.sub(lambda match: self._value(match.group(1)), str(text))

    def _value(self, operand):
        kind, *path = operand.split(".")
        if kind == "inputs":
            return self.inputs[path[0]]
        assert kind == "steps", operand
        if path[1] == "outcome":
            return self.outcomes.get(path[0], "")
        return self.outputs.get(path[0], {}).get(path[2], "")
