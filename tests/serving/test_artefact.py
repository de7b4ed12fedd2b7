"""An exported model whose bits changed is never loaded."""

import json
import os
import shutil

import numpy as np
import pytest

import hyperrec_jax
from hyperrec_jax.errors import UserError
from hyperrec_jax.serving.artefact import FILES, MANIFEST

pytestmark = pytest.mark.slow


def test_any_flipped_bit_is_refused_in_one_line(exported_model, tmp_path):
    """200 bits of all files, more of the manifest, each by itself."""
    model = shutil.copytree(exported_model, tmp_path / "model")
    rng = np.random.default_rng(0)
    names = [MANIFEST] * 100 + list(rng.choice(FILES, 100))
    for name in names:
        path = model / name
        content = path.read_bytes()
        place, bit = int(rng.integers(len(content))), int(rng.integers(8))
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(UserError) as refusal:
            hyperrec_jax.load(model)
        assert str(path) in str(refusal.value)
        assert "\n" not in str(refusal.value)
        path.write_bytes(content)
    hyperrec_jax.load(model)


def test_a_manifest_changed_by_hand_is_refused(exported_model, tmp_path):
    model = shutil.copytree(exported_model, tmp_path / "model")
    manifest = json.loads((model / MANIFEST).read_text())
    manifest["schema"]["numerical"][0]["mean"] += 1.0
    (model / MANIFEST).write_text(json.dumps(manifest, indent=2))
    with pytest.raises(UserError, match="fails its own checksum"):
        hyperrec_jax.load(model)


def test_export_through_a_symbolic_link_replaces_its_target(trained_run, exported_model, tmp_path):
    from hyperrec_jax.serving.export import export

    target = shutil.copytree(exported_model, tmp_path / "releases" / "model")
    (target / "weights.npz").unlink()
    link = tmp_path / "current"
    os.symlink(target, link)
    export(trained_run, link)
    assert link.is_symlink()
    assert sorted(path.name for path in target.parent.iterdir()) == ["model"]
    hyperrec_jax.load(target)


def test_a_result_that_cannot_be_loaded_replaces_nothing(
    trained_run, exported_model, tmp_path, monkeypatch
):
    from hyperrec_jax.serving import export as module

    target = shutil.copytree(exported_model, tmp_path / "model")
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    monkeypatch.setattr(module, "_programs", lambda *_: {"grid": b"no", "each": b"program"})
    with pytest.raises(UserError, match="can't read a model"):
        module.export(trained_run, target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
