"""Every published objective under the full cage computes what it computes inline, to the last bit."""

from __future__ import annotations

import pytest
import torch

from evaluators.objectives import known_contract, known_families, known_objectives
from sandbox.draws import draw
from sandbox.oracle import LossOracle
from sandbox.server import OracleServer
from tests.support.inline_oracle import InlineOracle

EVERY = [(family, name) for family in known_families() for name in known_objectives(family)]
BATCHES = (1, 2, 7, 31, 64, 257, 1024, 4096)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("family", "name"), EVERY)
def test_bits_equal_inline_at_every_batch_size(
    family: str, name: str, dtype: torch.dtype, server: OracleServer
) -> None:
    contract, objective = known_contract(family), known_objectives(family)[name]
    scalars = {s.name: [s.default] for s in contract.scalars_of(objective.inputs)}
    inline = InlineOracle(objective.candidate, contract)
    with LossOracle(server, objective.candidate, contract, objective.inputs) as oracle:
        for batch in BATCHES:
            drawn = draw(contract, (1, batch), batch, lambda g, shape: torch.randn(shape, generator=g).double())
            results = []
            for either in (oracle, inline):
                specs = contract.tensors_of(objective.inputs)
                given = {t.name: drawn[t.name].to(dtype, copy=True).requires_grad_(t.carries_gradient) for t in specs}
                mean = either(given, scalars)
                mean.sum().backward()
                assert either.last_losses is not None
                gradients = [given[t.name].grad for t in specs if t.carries_gradient]
                zero = torch.zeros(1, batch, dtype=dtype)
                results.append([mean.detach(), either.last_losses, *(zero if g is None else g for g in gradients)])
            for caged, alone in zip(*results, strict=True):
                assert torch.equal(caged, alone), batch
