"""`out=`: one process at a time, and nothing is called complete that is not."""

import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import tensorprog as tp
from tensorprog.kernels import lock as locking
from tensorprog.kernels.lock import FolderLock
from tensorprog.limits.pairs import pairs

n = tp.Width("n")


def network():
    return tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), n))))


def data():
    return np.random.default_rng(0).standard_normal((24, 3))


@pytest.fixture
def other(tmp_path):
    """Another process that has the folder, until its input ends."""
    code = "import sys; from pathlib import Path; from tensorprog.kernels.lock import FolderLock as L\n"
    code += "held = L(Path(sys.argv[1]), 'out'); print('ready', flush=True); sys.stdin.read(); held.release()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


def test_a_folder_in_use_is_refused_and_says_by_whom(tmp_path, other):
    with pytest.raises(tp.TensorProgramError, match=rf"in use by process {other.pid} on .*, since .*"):
        tp.kernel_fn(network())(data(), out=tmp_path)
    assert not (tmp_path / "nngp.npy").exists()


def test_a_killed_owner_leaves_no_lock(tmp_path, other):
    other.kill()
    other.wait()
    found = tp.kernel_fn(network())(data(), out=tmp_path)
    assert np.array_equal(found.nngp, tp.kernel_fn(network())(data()).nngp)


def test_without_locks_of_the_system_an_owner_that_is_gone_is_replaced(tmp_path, other, monkeypatch):
    monkeypatch.setattr(locking, "_system_lock", lambda _: None)
    with pytest.raises(tp.TensorProgramError, match="in use by process"):
        FolderLock(tmp_path, "out")
    other.kill()
    other.wait()
    FolderLock(tmp_path, "out").release()
    (tmp_path / "lock").write_text('{"process": 1, "host": "elsewhere", "since": "then"}')
    with pytest.raises(tp.TensorProgramError, match=r"(?s)on elsewhere.*delete 'lock'"):
        FolderLock(tmp_path, "out")


def test_threads_exclude_each_other_and_a_failed_call_lets_go(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 16)
    f, X = tp.kernel_fn(network()), data()
    held = FolderLock(tmp_path, "out")
    caught = []

    def call():
        try:
            f(X, out=tmp_path)
        except tp.TensorProgramError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    held.release()
    assert len(caught) == 1
    f(X, out=tmp_path)
    with pytest.raises(tp.TensorProgramError, match="something else"):
        f(X[:5], out=tmp_path)
    f(X, out=tmp_path)  # the refusal let go of the folder


def test_a_killed_call_is_taken_up_where_it_stopped(tmp_path):
    """The second process is killed while it computes; what a third one calls complete is."""
    code = textwrap.dedent(
        """
        import sys, time
        import numpy as np
        import tensorprog as tp
        from tensorprog.kernels.results import Results
        from tensorprog.limits.pairs import pairs
        pairs.BLOCK = 16
        put = Results.put
        def slow(self, *args, **keywords):
            put(self, *args, **keywords)
            time.sleep(float(sys.argv[2]))
        Results.put = slow
        n = tp.Width("n")
        net = tp.Network(tp.readout("v", tp.relu(tp.dense("U", tp.Input("x"), n))))
        tp.kernel_fn(net)(np.random.default_rng(0).standard_normal((24, 3)), out=sys.argv[1])
        """
    )
    folder = tmp_path / "kernel"
    first = subprocess.Popen([sys.executable, "-c", code, str(folder), "2"])
    while not (folder / "done.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = subprocess.run([sys.executable, "-c", code, str(folder), "0"], capture_output=True, text=True, check=False)
    assert second.returncode and f"in use by process {first.pid}" in second.stderr
    first.kill()
    first.wait()
    subprocess.run([sys.executable, "-c", code, str(folder), "0"], check=True)
    whole = tp.kernel_fn(network())(data())
    assert np.allclose(np.load(folder / "nngp.npy"), whole.nngp, rtol=1e-14, atol=0)
    assert np.allclose(np.load(folder / "ntk.npy"), whole.ntk, rtol=1e-14, atol=0)
    assert not list(folder.glob("*.part"))
