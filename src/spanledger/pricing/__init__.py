"""What a call costs: a price book over genai-prices' data, compiled to integer programs."""
