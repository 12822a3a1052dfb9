"""Losses as expression trees: read from source, evaluated, varied, written back as source. No torch."""
