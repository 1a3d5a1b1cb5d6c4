"""From scores to what people see."""
