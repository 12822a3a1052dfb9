"""The cage: contract, static gate, oracle child, behaviour probe. Needs only torch."""
