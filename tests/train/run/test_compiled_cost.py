from types import SimpleNamespace

import pytest

from train.run.compiled_cost import Collective, Cost, collectives, cost_of, roofline
from train.run.topology import CHIPS

# As XLA prints a compiled program, shortened.
HLO = """HloModule jit_step, is_scheduled=true

%add.clone (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%fused (p: bf16[8,16]) -> bf16[8,16] {
  ROOT %all-reduce.9 = bf16[8,16]{1,0:T(8,128)(2,1)} all-reduce(%p), to_apply=%add.clone
}

%body (state: (s32[], f32[32])) -> (s32[], f32[32]) {
  %all-reduce.1 = f32[32]{0:T(128)S(1)} all-reduce(%x), to_apply=%add.clone
}

%counted (state: (s32[], f32[32])) -> (s32[], f32[32]) {
  %all-reduce.2 = f32[]{:T(128)} all-reduce(%x), to_apply=%add.clone
}

ENTRY %main.1_spmd (a: f32[4]) -> (f32[4], /*index=1*/f32[4]) {
  %all-reduce.3 = (f32[10]{0:T(128)}, f32[3,3]{1,0}) all-reduce(%a, %b), \
to_apply=%add.clone, metadata={op_name="jit(step)/reduce_sum"}
  %all-reduce-start.4 = f32[100]{0} all-reduce-start(%c), to_apply=%add.clone
  %all-reduce-done.4 = f32[100]{0} all-reduce-done(%all-reduce-start.4)
  %gather = (u8[2,5]{1,0}, u8[8,5]{1,0}) all-gather-start(%d), dimensions={0}
  %move = (f32[7]{0}, f32[7]{0}, u32[]{:S(2)}, u32[]) collective-permute-start(%e)
  %part = f32[6]{0} reduce-scatter(%f), to_apply=%add.clone
  %fusion = bf16[8,16]{1,0} fusion(%g), kind=kCustom, calls=%fused
  %loop = (s32[], f32[32]{0}) while(%t), condition=%c, body=%body
  %loop.2 = (s32[], f32[32]{0}) while(%t), condition=%c, body=%counted, \
backend_config={"known_trip_count":{"n":"5"}}
  %use = f32[4]{0} add(%all-reduce.3, %all-reduce-done.4)
}
"""


def test_collectives_are_counted_with_the_bytes_of_their_results():
    # In the entry 40 + 36 and 400, in a fusion 256, in loops 3 times 128 and 5 times 4.
    assert collectives(HLO, trips=3) == (
        Collective("all-gather", 1, 40),
        Collective("all-reduce", 11, 76 + 400 + 256 + 3 * 128 + 5 * 4),
        Collective("collective-permute", 1, 28),
        Collective("reduce-scatter", 1, 24),
    )


def test_a_program_without_collectives_has_none():
    assert collectives("ENTRY %main (a: f32[4]) -> f32[4] {\n  %a = add(%b)\n}\n") == ()


def compiled(flops, traffic):
    sizes = SimpleNamespace(
        argument_size_in_bytes=100,
        output_size_in_bytes=90,
        alias_size_in_bytes=80,
        temp_size_in_bytes=7,
        generated_code_size_in_bytes=5,
    )
    return SimpleNamespace(
        memory_analysis=lambda: sizes,
        cost_analysis=lambda: {"flops": flops, "bytes accessed": traffic},
        as_text=lambda: HLO,
    )


def test_results_in_the_memory_of_arguments_count_once_and_parts_multiply():
    cost = cost_of(compiled(6.0, 8.0), parts=3)
    assert cost.memory == 100 + 10 + 7 + 5
    assert (cost.flops, cost.traffic) == (18.0, 24.0)
    assert cost.collectives == collectives(HLO, trips=3)


@pytest.mark.parametrize(
    ("flops", "traffic", "reduced", "binds", "seconds"),
    [
        (197e12, 819e7, 0, "compute", 1.0),
        (197e10, 819e8, 0, "memory", 0.1),
        # Over four chips, each sends 2 * 3 / 4 of 40 GB over links of 200 GB/s.
        (0, 0, 40_000_000_000, "links", 0.3),
    ],
)
def test_the_slowest_roof_binds(flops, traffic, reduced, binds, seconds):
    exchanged = (Collective("all-reduce", 2, reduced),)
    cost = Cost(0, 0, 0, 0, flops, traffic, exchanged)
    roof = roofline(cost, CHIPS["v5e"], chips=4)
    assert roof.binds == binds
    assert roof.seconds == pytest.approx(seconds)


def test_a_single_chip_sends_nothing():
    cost = Cost(0, 0, 0, 0, 1.0, 1.0, (Collective("all-reduce", 1, 1000),))
    assert roofline(cost, CHIPS["v6e"], chips=1).links == 0
