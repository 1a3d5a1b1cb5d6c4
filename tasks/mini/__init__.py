"""The mini world: generated data to test the mechanism; says nothing about real data sets."""
