"""DPO times what is only a learning rate: a constant, a schedule, a statistic of the batch.

Expressions of a batch's DPO losses `dpo` and of `z`, beta times the margin.
"""

RATES = {
    "x 10": "10.0 * dpo",
    "x 1e-6": "1e-6 * dpo",
    "x exp(4 progress)": "math.exp(4 * progress) * dpo",
    "x exp(-4 progress)": "math.exp(-4 * progress) * dpo",
    "/ mean sigmoid(-z)": "dpo / torch.sigmoid(-z).mean().detach()",
    "/ std": "dpo / (z.std().detach() + 0.01)",
}
