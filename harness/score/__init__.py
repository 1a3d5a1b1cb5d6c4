"""From rows and gold to scores."""
