"""What operators and machines ask for: health, readiness, metrics, the API's document and its pages."""
