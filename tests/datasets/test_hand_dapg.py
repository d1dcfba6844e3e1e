"""hand_dapg pickles: what is read, and that nothing in a file is ever executed."""

import os
import pickle
import re

import numpy as np
import pytest
from small_files import dapg_episodes, write_pickle

from expo_bench.datasets import load
from expo_bench.errors import UserError


@pytest.mark.parametrize("protocol", range(6))
def test_reads_every_pickle_protocol(tmp_path, protocol):
    episodes = dapg_episodes((5, 4))
    data = load(write_pickle(tmp_path / "demos.pickle", episodes, protocol))
    assert data.size == 4 + 3
    np.testing.assert_array_equal(data.episode_lengths, [4, 3])
    np.testing.assert_allclose(data.obs[:4], episodes[0]["observations"][:-1], rtol=1e-6)
    np.testing.assert_allclose(data.next_obs[4:], episodes[1]["observations"][1:], rtol=1e-6)
    np.testing.assert_allclose(data.reward[4:], episodes[1]["rewards"][:-1], rtol=1e-6)
    np.testing.assert_array_equal(data.truncated, [0, 0, 0, 1, 0, 0, 1])
    assert not data.terminated.any() and data.obs.dtype == np.float32
    assert data.meta["dropped_transitions"] == 2 and "no next observation" in data.meta["notes"][0]


def test_reads_both_numpy_module_paths_and_array_orders(tmp_path):
    episodes = dapg_episodes((3,))
    episodes[0]["observations"] = np.asfortranarray(episodes[0]["observations"]).astype(">f8")
    raw = pickle.dumps(episodes, 2)
    old = raw.replace(b"numpy._core.", b"numpy.core.")
    assert old != raw
    for name, content in (("new.pkl", raw), ("old.pkl", old)):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_allclose(load(tmp_path / name).obs, episodes[0]["observations"][:-1], rtol=1e-6)


def test_reads_python_2_strings(tmp_path):
    """As cPickle of Python 2 with numpy 1 wrote it: protocol 2, array content as latin1 text."""

    def array(values):
        values = np.asarray(values, "<f8")
        raw = values.tobytes()
        shape = b"".join(b"K" + bytes([n]) for n in values.shape)
        shape = b"(" + shape + b"t"
        head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        dtype = b"cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return head + b"(K\x01" + shape + dtype + b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"

    obs = [[1.0, 2], [3, 4], [5, -6e30]]
    content = b"\x80\x02](}(U\x0cobservations" + array(obs)
    content += b"U\x07actions" + array([[1.0], [2], [3]]) + b"U\x07rewards" + array([1.0, 2, 3]) + b"ue."
    (tmp_path / "py2.pickle").write_bytes(content)
    data = load(tmp_path / "py2.pickle")
    np.testing.assert_array_equal(data.obs, np.float32(obs[:-1]))
    np.testing.assert_array_equal(data.next_obs[-1], np.float32([5, -6e30]))


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def test_refuses_and_does_not_execute_foreign_globals(tmp_path):
    mark = tmp_path / "executed"
    for index, evil in enumerate([Evil(os.system, f"touch {mark}"), Evil(eval, f"open({str(mark)!r}, 'w')")]):
        path = write_pickle(tmp_path / f"evil{index}.pickle", [evil])
        with pytest.raises(UserError, match=rf"(?s)evil{index}.pickle.*(posix|nt).system|builtins.eval.*not executed") as error:
            load(path)
        assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.",  # BUILD on a global: would set attributes of a function
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ of a global
        b"\x80\x02cnumpy\ndtype\n.",  # a bare global as the content
        pickle.dumps([{"observations": np.array([object, 1], dtype=object)}], 2).replace(b"c__builtin__\nobject\n", b"N"),
        pickle.dumps(np.zeros(2, [("a", "f4")]), 2),
    ],
)
def test_refuses_everything_but_plain_numeric_arrays(tmp_path, content):
    path = tmp_path / "odd.pickle"
    path.write_bytes(content)
    with pytest.raises(UserError, match="odd.pickle: .*expected"):
        load(path)


def test_an_array_may_not_claim_more_than_its_bytes(tmp_path):
    raw = pickle.dumps([{"observations": np.zeros((2, 3))}], 3)
    path = tmp_path / "claims.pickle"
    path.write_bytes(raw.replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86"))
    with pytest.raises(UserError, match=r"shape \(2, 4\)"):
        load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(tmp_path, share):
    path = write_pickle(tmp_path / "demos.pickle", dapg_episodes())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="demos.pickle: .*(truncated|too early)"):
        load(path)


def _episodes(**changes):
    return [{**dapg_episodes((4,))[0], **changes}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "empty list"),
        ({"a": 1}, "found a pickled dict"),
        ([3], "episode 0 is a int"),
        ([{"observations": np.zeros((3, 2))}], "'actions': found no such field"),
        (_episodes(rewards=[1, 2, 3, 4]), "'rewards': found a list"),
        (_episodes(rewards=np.zeros(3)), "'rewards': found 3 rows, expected 4"),
        (_episodes(actions=np.zeros(4)), r"'actions': found shape \(4,\), expected 2 dimensions"),
        (dapg_episodes((4,)) + dapg_episodes((4,), obs_size=3), "episode 1, 'observations': found 3 columns, expected 2"),
        (dapg_episodes((1,)), "at most one step"),
    ],
)
def test_wrong_content_is_named(tmp_path, content, message):
    path = write_pickle(tmp_path / "demos.pickle", content)
    with pytest.raises(UserError, match=re.escape("demos.pickle") + ".*" + message):
        load(path)


def test_real_door_demonstrations(door_demos):
    data = load(door_demos)
    assert (len(data.episode_ends), data.size, data.obs_size, data.action_size) == (25, 6729 - 25, 39, 28)
    assert np.isfinite(data.obs).all() and 0.81 < (np.abs(data.action) > 1).any(1).mean() < 0.83
    inside = ~data.truncated[:-1]
    np.testing.assert_array_equal(data.next_obs[:-1][inside], data.obs[1:][inside])
