from types import SimpleNamespace

import pytest
from conftest import composed

from lab import schema, verdict
from lab.errors import ConfigError

RESULT = {"test_accuracy": 0.7188, "best_epoch": 3}


def state(count: int, *losses: float) -> SimpleNamespace:
    history = [{"train_loss": loss} for loss in losses]
    return SimpleNamespace(image_losses=[0.0] * count, history=history, epoch=len(losses))


def sentence(accuracy: float, of: SimpleNamespace, *words: str) -> str:
    result = RESULT | {"val_accuracy": accuracy}
    return verdict.sentence(result, composed("dataset=digits", *words), of)


def test_a_run_ends_with_its_test_accuracy():
    assert sentence(1.0, state(64, 2, 1)) == "test accuracy 71.88% (weights of epoch 3)"


@pytest.mark.parametrize(
    ("right", "count", "losses", "found"),
    [
        (64, 64, (2, 0.1), "the model can memorise a batch: 64 of 64"),
        (7, 7, (2, 0.1), "the model can memorise a batch: 7 of 7"),
        (63, 64, (2.0, 0.1), "cannot memorise a batch: 63 of 64 after 2 epochs. The loss"),
        (6, 64, (2.0, 1.99), "The loss hardly fell, from 2.000 to 1.990: set another optimizer.lr"),
        (90, 90, (2, 0.1), "the model can memorise its training images: 90 of 90"),
    ],
)
def test_whether_a_batch_was_learnt_by_heart(right, count, losses, found):
    said = sentence(right / count, state(count, *losses), "debug=overfit")
    assert found in said and "test accuracy" not in said
    assert ("cannot" in said) == (right < count)


@pytest.mark.slow
def test_a_model_that_ignores_its_images_cannot_learn_them(script, capfd):
    """By the command: with a learning rate of almost nothing, the last lines say that it failed."""
    words = ("dataset=digits", "debug=overfit", "epochs=2", "optimizer.lr=1e-9", "model=linear")
    assert script(*words) == 0
    output = capfd.readouterr().out
    assert "the model cannot memorise a batch" in output and "test accuracy" not in output


def test_memorise_needs_validation_on_the_training_images():
    with pytest.raises(ConfigError, match="memorise=True is not allowed"):
        schema.check(composed("dataset=digits", "memorise=true", "name=x"))
    schema.check(composed("dataset=digits", "memorise=true", "val_size=0", "name=x"))
