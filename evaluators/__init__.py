"""One folder per task family: data, reference model, training, scoring, known objectives. Needs torch and numpy."""
