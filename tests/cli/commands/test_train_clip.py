"""``ecdreg train clip``: a CLIP where one is named, the dual encoder where none is; and what sentences find then."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Invoke

QUICK = ("--target", "k_vrh", "--max-epochs", "3", "--no-finetune")


def test_without_a_clip_the_dual_encoder_is_trained_with_a_note(
    invoke: Invoke, crystals: dict[str, int], tiny_image: Path
) -> None:
    made = invoke("train", "clip", "--image-backbone", tiny_image, "--image-size", "32", *QUICK)
    assert made.exit_code == 0, made.stderr
    assert "no CLIP is named: this trains the dual encoder, which stands in for a CLIP and is not one" in made.stderr
    assert "dual-encoder" in made.stdout
    assert "clip" not in made.stdout  # no table calls it one
    listed = json.loads(invoke("encoders", "list", "--json").stdout)
    (own,) = [row for row in listed if row["encoder"] == "dual-encoder:k_vrh@1"]
    assert (own["modality"], own["dim"], own["text_level"]) == ("image", 512, None)
    found = invoke("similar", "--text", "MgO is halite", "--encoder", "dual-encoder:k_vrh@1", "-k", "3", "--json")
    assert found.exit_code == 0, found.stderr
    rows = json.loads(found.stdout)
    assert len(rows) == 3
    assert all(0 <= row["distance"] <= 2 for row in rows)
    predicted = invoke("predict", "dual-encoder", "mp-1", "--json")
    assert predicted.exit_code == 0, predicted.stderr
    card = invoke("models", "show", "dual-encoder:k_vrh")
    assert card.exit_code == 0, card.stderr


def test_errors_are_one_line(invoke: Invoke, crystals: dict[str, int], tmp_path: Path) -> None:
    away = invoke("train", "clip", "--clip", "openai/clip-vit-base-patch32", *QUICK)
    assert (away.exit_code, away.stdout) == (2, "")
    (error,) = [line for line in away.stderr.splitlines() if line.startswith("error: ")]
    assert "preprocessor_config.json, model.safetensors" in error
    assert "ECDREG_MODELS/openai/clip-vit-base-patch32" in error
    both = invoke("train", "clip", "--clip", "./mine", "--image-size", "64", *QUICK)
    assert both.exit_code == 2
    assert "image_size is an option of the dual encoder" in both.stderr
    empty = invoke("train", "clip", "--clip", str(tmp_path), *QUICK)
    assert empty.exit_code == 2
    assert f"{tmp_path} has no config.json; a CLIP needs config.json" in empty.stderr
