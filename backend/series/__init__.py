"""Series made by our own code, and the measures of forecasts. No torch here."""
