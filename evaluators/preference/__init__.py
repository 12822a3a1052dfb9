"""Preference optimisation: a policy learns from pairs (chosen, rejected) relative to a reference policy."""
