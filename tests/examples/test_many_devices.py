"""The example with many devices: the same accuracies on two devices, and in two processes, as on one."""

import os
import re
import socket
import subprocess
import sys

import pytest

from tests.examples.support import EXAMPLES, run

SMALL = "--epochs", "2", "--hidden", "16", "--steps", "3"


def accuracies(text: str) -> list[str]:
    """For each epoch."""
    return re.findall(r"^epoch \d: [\d.]+ ms a step.*, ([\d.]+%) of the last batch are right$", text, re.MULTILINE)


@pytest.mark.thorough
def test_two_devices_learn_what_one_does() -> None:
    one, two = run("5_many_devices", *SMALL), run("5_many_devices", *SMALL, "--devices", "2")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert "1 processes, 2 devices" in two.stdout
    assert len(accuracies(one.stdout)) == 2
    assert accuracies(two.stdout) == accuracies(one.stdout)


@pytest.mark.slow
def test_two_processes_learn_what_one_does() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "5_many_devices.py"), *SMALL]
    command += ["--processes", "2", "--coordinator", f"localhost:{port}", "--devices", "1", "--process"]
    both = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True, env={**os.environ})
        for number in range(2)
    ]
    try:
        texts = [process.communicate(timeout=200)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0]
    assert "2 processes, 2 devices" in texts[0]
    assert accuracies(texts[0]) == accuracies(run("5_many_devices", *SMALL).stdout)


@pytest.mark.thorough
def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    result = run("5_many_devices", "--devices", "3")
    assert result.returncode == 2
    assert "--batch-size: expected a multiple of 3 devices, found 64" in result.stderr
