"""Law: devices agree bit for bit on the operations that are documented as exact."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptkit.engine.device import TensorFlowDevice, device_from
from ckptkit.expressions import OPS
from ckptkit.kernels import Expression
from ckptkit.language import parse
from tests.property.agreement import LENGTHS, SINGLE, check_agreement, formulas, single
from tests.property.strategies import SEEDS

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def run(tf):
    return device_from("cpu").run


def test_every_exact_operation_is_among_them():
    assert {op for op, _ in SINGLE} == {op for op in OPS if OPS[op].exact}


@pytest.mark.parametrize(("op", "dtype"), SINGLE)
@settings(max_examples=5)
@given(count=LENGTHS, seed=SEEDS)
def test_an_exact_operation_gives_the_bits_of_numpy(run, op, dtype, count, seed):
    check_agreement(single(op, dtype), dtype, count, seed, run)


@pytest.mark.parametrize(
    ("op", "dtype"), [one for one in SINGLE if one[0] in {"sign", "round", "sqrt"}]
)
def test_what_stands_in_for_kernels_of_gpus_gives_the_bits_of_numpy_on_processors_too(
    tf, op, dtype
):
    device = TensorFlowDevice("gpu", ["CPU:0"])
    for seed in range(3):
        check_agreement(single(op, dtype), dtype, 1001, seed, device.run)


@settings(max_examples=150)
@given(made=formulas(), count=LENGTHS, seed=SEEDS)
def test_exact_operations_together_give_the_bits_of_numpy(run, made, count, seed):
    kernel, dtype = made
    check_agreement(kernel, dtype, count, seed, run)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    "text", ["x / 3", "x / 0.7", "1 / x", "0 - x", "x + 0", "x * 0.1 * 3", "(x + 0.1) + 0.3",
             "0.3 * (x / 0.7)", "1 / sqrt(x)", "x * 2 - x * 3", "1 / (1 / x)"],
)  # fmt: skip
@given(seed=st.integers(0, 9))
@settings(max_examples=2)
def test_what_compilers_like_to_simplify_is_computed_as_it_is_written(run, text, dtype, seed):
    check_agreement(Expression(parse(f"w = {text}").expr, dtype), dtype, 5000, seed, run)
