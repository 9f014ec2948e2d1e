import pytest

from sweeps.table import formatted, markdown, short, sort_key, spread


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.0003162277660168379", "0.0003162"),
        (0.123456, "0.1235"),
        ("60000", "60000"),
        (269322, "269322"),
        (1234567.891, "1.235e+06"),
        ("1e-3", "0.001"),
        (1e300, "1e+300"),
        (128.0, "128"),
        (True, "True"),
        ("true", "true"),
        ("adamw", "adamw"),
        ("[256, 256]", "[256, 256]"),
        ("", ""),
    ],
)
def test_floats_have_four_significant_digits_and_integers_have_all(value, text):
    assert formatted(value) == text


def test_numbers_sort_before_lists_and_lists_before_words():
    expected = ["-1", "1e-3", "32", "64", "128", "256", "[32]", "[64]", "[64, 8]", "[128]", "mlp"]
    assert sorted(reversed(expected), key=sort_key) == expected


def test_keys_are_shortened_unless_that_is_ambiguous():
    keys = ["optimizer.lr", "model._target_", "model.dropout", "scheduler.dropout"]
    assert short(keys) == ["lr", "model", "model.dropout", "scheduler.dropout"]


def test_only_several_runs_have_a_standard_deviation():
    assert spread((0.5, None), 100, 2) == "50.00"
    assert spread((0.5, 0.012), 100, 1) == "50.0 ± 1.2"


def test_columns_are_aligned():
    lines = markdown(["a", "long head"], [["wide cell", "1"], ["b", "2"]])
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
