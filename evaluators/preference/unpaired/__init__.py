"""Preference optimisation from single labelled responses (family F3). Contract: `evaluators.preference.contract`."""
